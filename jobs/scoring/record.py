"""The run record: what a run did and came to, from which a report can be made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.cluster.tally import Reported
from jobs.errors import MissingObjectError, StorageError
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.promises import describe_false_discoveries, describe_promises, describe_tail
from jobs.scoring.publication.tally import RunTally
from jobs.scoring.run_folder import RunFolder
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import SCHEMA_VERSION, Status
from model.versions import read_versions

FINISHED, UNFINISHED = "finished", "unfinished"
"""Values of ``status`` in a record; one of an earlier version has none, and is finished."""


def read_record(folder: RunFolder) -> dict[str, Any] | None:
    """Reads the run record; None while the run is not done.

    Raises:
        StorageError: the record is damaged, or storage refused.
    """
    return read_json_record(folder.record)


def read_unfinished(folder: RunFolder) -> dict[str, Any] | None:
    """Reads how far a run has come that is under way, or was killed and not continued; None if there is none such.

    Raises:
        StorageError: the record is damaged, or storage refused.
    """
    return read_json_record(folder.unfinished)


def read_json_record(uri: str) -> dict[str, Any] | None:
    """Reads a record; None where there is none. Raises StorageError where it is damaged, or storage refused."""
    try:
        return dict(json.loads(storage.read(uri)))
    except MissingObjectError:
        return None
    except (ValueError, TypeError) as error:
        raise StorageError(f"{uri} is damaged: expected JSON; restore it or delete it") from error


def read_tables(files: Sequence[str], *, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Reads Parquet files of one schema into one table, for those that fit into memory."""
    wanted = pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(scan_parquet(files, columns=columns, schema=schema), schema=wanted)


@dataclass(frozen=True)
class Published:
    """What went into the table.

    Attributes:
        tally: the run's rows, counted.
        slices: commits that they came in.
        dropped: rows of this try that another run had committed in the meantime, so that they were left out.
        rescored: rows from stored raw scores, without a fetch.
    """

    tally: RunTally
    slices: int
    dropped: int
    rescored: int = 0


def make_unfinished(
    plan: ScoringPlan,
    *,
    config: Mapping[str, Any],
    listed: int,
    to_score: int,
    started_at: datetime,
    slices: int,
    committed_slices: int,
) -> dict[str, Any]:
    """Makes the record of a run that is not done: what it was asked for, and how many of its slices are committed."""
    return {
        "run_id": plan.run_id,
        "status": UNFINISHED,
        "started_at": started_at.isoformat(),
        "updated_at": datetime.now(UTC).isoformat(),
        "listed": listed,
        "to_score": to_score,
        "slices": slices,
        "committed_slices": committed_slices,
        **describe_request(plan, config),
    }


def describe_request(plan: ScoringPlan, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record says of a run before anything is scored: schema, promises, detectors, versions."""
    return {
        "schema_version": SCHEMA_VERSION,
        "promises": describe_promises(plan),
        "detectors": {name: detector.detector_id for name, detector in plan.by_category.items()},
        "weights": {name: detector.weights_id for name, detector in plan.by_category.items()},
        "tails": {name: describe_tail(detector.tail) for name, detector in sorted(plan.by_category.items())},
        "config": dict(config),
        "versions": read_versions(),
    }


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
        "status": FINISHED,
        "started_at": started_at.isoformat(),
        "published_at": datetime.now(UTC).isoformat(),
        "listed": listed,
        "already_scored": listed - count_listed(counts),
        "counts": {status.value: counts.get(status, 0) for status in Status},
        "errors": dict(tally.errors.most_common()),
        "anomalies": tally.anomalies,
        "false_discoveries": describe_false_discoveries(plan, tally),
        "rescored": published.rescored,
        "error_rate": compute_error_rate(count_fetched(counts, published.rescored)),
        "by_category": {name: dict(found) for name, found in sorted(tally.by_category.items())},
        "images_per_s": reported.steady_per_s,
        "first_scored_at": datetime.fromtimestamp(reported.first_at, UTC).isoformat() if reported.first_at else None,
        "measures": {name: round(value, 3) for name, value in sorted(reported.measures.items())},
        "timings_s": {name: round(seconds, 3) for name, seconds in timings_s.items()},
        "slices": published.slices,
        "dropped": published.dropped,
        **describe_request(plan, config),
    }


def count_listed(counts: Mapping[str, int]) -> int:
    """Counts the rows of objects that the run has listed; those marked as deleted were not."""
    return sum(counts.values()) - counts.get(Status.DELETED, 0)


def count_fetched(counts: Mapping[str, int], rescored: int) -> dict[str, int]:
    """Counts rows by status without those from stored scores: what went wrong is a share of what was tried."""
    return {**counts, Status.SCORED.value: counts.get(Status.SCORED, 0) - rescored}


def compute_error_rate(counts: Mapping[str, int]) -> float:
    """Returns the share, 0 to 1, of rows that could not be read or scored: unreadable and failed."""
    total = count_listed(counts)
    return (counts.get(Status.UNREADABLE, 0) + counts.get(Status.FAILED, 0)) / total if total else 0.0


def write_record(record: Mapping[str, Any], folder: RunFolder) -> None:
    """Writes the record, which says that the run is done, and then takes away the one that says it is not."""
    storage.write(folder.record, json.dumps(record, indent=2).encode())
    storage.delete(folder.unfinished)


def write_unfinished(record: Mapping[str, Any], folder: RunFolder) -> None:
    """Writes how far a run has come."""
    storage.write(folder.unfinished, json.dumps(record, indent=2).encode())
