"""What a run came to, counted while its rows stream by: for its record, from which a report can be made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.cluster.tally import Reported
from jobs.errors import MissingObjectError, StorageError
from jobs.results.known import read_rows, stream_rows
from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.scoring.run_folder import RunFolder
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import SCHEMA_VERSION, Status
from model.statistics.calibration import count_ranks, describe_guarantee, find_min_rate, find_min_sample_size
from model.statistics.false_discovery import AlarmEstimates, add_estimates, estimate_alarms, list_trusted
from model.statistics.tail_rank import Tail
from model.versions import read_versions

_AFTER_CODE = r":.*"
TALLIED = ["category", "status", "error", "is_anomaly", "p_value"]
"""SCORES columns that a tally looks at."""


class RunTally:
    """Sums over SCORES rows.

    Attributes:
        counts: rows by status.
        errors: rows that have an error, by its reason code.
        anomalies: rows flagged.
        by_category: category (empty for none) -> rows by status, and ``anomalies``.
        p_values: category -> p-value -> its photos; a calibration of n photos gives at most n + 1 of them.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.counts, self.errors = Counter[str](), Counter[str]()
        self.anomalies = 0
        self.by_category: dict[str, Counter[str]] = {}
        self.p_values: dict[str, Counter[float]] = {}

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Passes the batches on as they are and counts their rows."""
        for batch in batches:
            self._add(batch)
            yield batch

    def _add(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch]).select(TALLIED)
        grouped = table.group_by(["category", "status"]).aggregate([([], "count_all"), ("is_anomaly", "sum")])
        for row in grouped.to_pylist():
            count, anomalies = row["count_all"], row["is_anomaly_sum"] or 0
            self.counts[row["status"]] += count
            self.anomalies += anomalies
            mine = self.by_category.setdefault(row["category"] or "", Counter())
            mine.update({row["status"]: count, "anomalies": anomalies})
        ranked = table.filter(pc.is_valid(table["p_value"])).group_by(["category", "p_value"])
        for row in ranked.aggregate([([], "count_all")]).to_pylist():
            self.p_values.setdefault(row["category"] or "", Counter())[row["p_value"]] += row["count_all"]
        codes = pc.value_counts(pc.replace_substring_regex(table["error"].drop_null(), _AFTER_CODE, ""))
        self.errors.update({row["values"]: row["counts"] for row in codes.to_pylist()})


def read_record(folder: RunFolder) -> dict[str, Any] | None:
    """Reads the run record; None while the run is not done.

    Raises:
        StorageError: the record is damaged, or storage refused.
    """
    try:
        return dict(json.loads(storage.read(folder.record)))
    except MissingObjectError:
        return None
    except (ValueError, TypeError) as error:
        raise StorageError(f"{folder.record} is damaged: expected JSON; restore it or delete it") from error


def read_published(results: str, columns: Sequence[str]) -> pa.Table:
    """Reads some columns of all rows of the result table into one table, for those that fit into memory."""
    return read_rows(results, columns)


def read_tables(files: Sequence[str], *, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Reads Parquet files of one schema into one table, for those that fit into memory."""
    wanted = pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(scan_parquet(files, columns=columns, schema=schema), schema=wanted)


def tally_run(results: str, run_id: str) -> RunTally:
    """Counts the rows that one run has in the result table, of all its tries."""
    tally = RunTally()
    for _ in tally.watch(stream_rows(results, TALLIED, run_id=run_id)):
        pass
    return tally


@dataclass(frozen=True)
class Published:
    """What went into the table.

    Attributes:
        tally: the run's rows, counted.
        slices: commits that they came in.
        dropped: rows of this try that another run had committed in the meantime, so that they were left out.
    """

    tally: RunTally
    slices: int
    dropped: int


def make_record(
    published: Published,
    *,
    plan: ScoringPlan,
    config: Mapping[str, Any],
    listed: int,
    started_at: datetime,
    timings_s: Mapping[str, float],
    reported: Reported,
) -> dict[str, Any]:
    """Makes the run record: counts, configuration, detectors, versions and timings of one published run."""
    tally, counts = published.tally, published.tally.counts
    return {
        "run_id": plan.run_id,
        "schema_version": SCHEMA_VERSION,
        "started_at": started_at.isoformat(),
        "published_at": datetime.now(UTC).isoformat(),
        "listed": listed,
        "already_scored": listed - count_listed(counts),
        "counts": {status.value: counts.get(status, 0) for status in Status},
        "errors": dict(tally.errors.most_common()),
        "anomalies": tally.anomalies,
        "promises": describe_promises(plan),
        "false_discoveries": describe_false_discoveries(plan, tally),
        "error_rate": compute_error_rate(counts),
        "by_category": {name: dict(found) for name, found in sorted(tally.by_category.items())},
        "images_per_s": reported.steady_per_s,
        "first_scored_at": datetime.fromtimestamp(reported.first_at, UTC).isoformat() if reported.first_at else None,
        "measures": {name: round(value, 3) for name, value in sorted(reported.measures.items())},
        "timings_s": {name: round(seconds, 3) for name, seconds in timings_s.items()},
        "detectors": {name: detector.detector_id for name, detector in plan.by_category.items()},
        "weights": {name: detector.weights_id for name, detector in plan.by_category.items()},
        "tails": {name: describe_tail(detector.tail) for name, detector in sorted(plan.by_category.items())},
        "config": dict(config),
        "versions": read_versions(),
        "slices": published.slices,
        "dropped": published.dropped,
    }


def describe_promises(plan: ScoringPlan) -> dict[str, dict[str, Any]]:
    """Describes what each category's calibration promises at its false-alarm rate.

    Returns:
        By category: ``false_alarm_rate`` asked for or chosen, ``confidence``, ``calibration_photos``, ``smallest_rate``
        that they support, ``photos_needed`` for the rate, ``threshold`` (None: no photo could be an anomaly, and
        is_anomaly is null) and ``promise``, the same in words.
    """
    return {
        category: {
            "false_alarm_rate": (rate := detector.false_alarm_rate),
            "confidence": (confidence := detector.confidence),
            "calibration_photos": (photos := len(detector.calibration.scores)),
            "smallest_rate": find_min_rate(photos, confidence=confidence),
            "photos_needed": find_min_sample_size(rate, confidence=confidence),
            "threshold": detector.threshold,
            "promise": describe_guarantee(photos, false_alarm_rate=rate, confidence=confidence),
        }
        for category, detector in sorted(plan.by_category.items())
    }


def describe_false_discoveries(plan: ScoringPlan, tally: RunTally) -> dict[str, Any]:
    """Describes what the alarms of a run are worth, see `model.statistics.false_discovery`.

    Returns:
        Of all photos, and under ``by_category`` of those of each category that has some: ``photos``, ``alarms``,
        ``expected_false_alarms``, ``defective_share`` and ``true_alarm_share`` (each ``value``, ``low``, ``high``), and
        ``lists``: for each ``q`` the ``photos`` that can be trusted and their ``p_value``, or the calibration
        ``photos_needed``.
    """
    known = {
        category: plan.by_category[category] for category in sorted(tally.p_values) if category in plan.by_category
    }
    estimates = {
        category: estimate_alarms(
            tally.p_values[category],
            calibration_photos=(photos := len(detector.calibration.scores)),
            ranks=count_ranks(photos, detector.false_alarm_rate, confidence=detector.confidence),
            alarms=tally.by_category[category]["anomalies"],
        )
        for category, detector in known.items()
    }
    return {
        **describe_estimates(add_estimates(list(estimates.values())), known, tally),
        "by_category": {
            category: describe_estimates(found, {category: known[category]}, tally)
            for category, found in estimates.items()
        },
    }


def describe_estimates(
    found: AlarmEstimates, detectors: Mapping[str, PlannedDetector], tally: RunTally
) -> dict[str, Any]:
    """Describes the estimates and trusted lists of some categories, as `describe_false_discoveries` says."""
    photos = [len(detector.calibration.scores) for detector in detectors.values()]
    lists = list_trusted([tally.p_values[category] for category in detectors], calibration_photos=photos)
    return {
        "photos": found.photos,
        "alarms": found.alarms,
        "expected_false_alarms": round(found.expected_false_alarms, 3),
        "defective_share": asdict(found.defective_share),
        "true_alarm_share": asdict(found.true_alarm_share) if found.alarms else None,
        "lists": [asdict(one) for one in lists],
    }


def describe_tail(tail: Tail) -> dict[str, Any]:
    """Describes the model behind a category's tail ranks: no estimate but an order where ``exceedances`` is 0."""
    return tail.model_dump(mode="json")


def count_listed(counts: Mapping[str, int]) -> int:
    """Counts the rows of objects that the run has listed; those marked as deleted were not."""
    return sum(counts.values()) - counts.get(Status.DELETED, 0)


def compute_error_rate(counts: Mapping[str, int]) -> float:
    """Returns the share, 0 to 1, of rows that could not be read or scored: unreadable and failed."""
    total = count_listed(counts)
    return (counts.get(Status.UNREADABLE, 0) + counts.get(Status.FAILED, 0)) / total if total else 0.0


def write_record(record: Mapping[str, Any], folder: RunFolder) -> None:
    """Writes the record, which says that the run is done."""
    storage.write(folder.record, json.dumps(record, indent=2).encode())
