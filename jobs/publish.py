"""From staging to the table: reconcile with the manifest, write the files, write the run record last."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs import storage, uris
from jobs.errors import MissingObjectError, StorageError
from jobs.plan import ScoringPlan
from jobs.progress import Reported
from jobs.reconciliation import in_table_order, reconcile
from jobs.run_tally import RunTally
from jobs.schema import SCHEMA_VERSION, SCORES, Status
from jobs.scratch import Scratch
from jobs.table_files import write_files
from jobs.tables import scan

_RECORDS_AT_ONCE = 16


def staging(results: str, run_id: str) -> str:
    """Folder of a run that is not published yet."""
    return uris.join(results, "staging", run_id)


def record_uri(results: str, run_id: str) -> str:
    """The run record: a run without it is not published."""
    return uris.join(results, "runs", f"{run_id}.json")


def read_record(results: str, run_id: str) -> dict[str, Any] | None:
    """The run record, or None while the run is not published."""
    try:
        record = json.loads(storage.read(record_uri(results, run_id)))
    except MissingObjectError:
        return None
    except ValueError as error:
        raise StorageError(
            f"{record_uri(results, run_id)} is damaged: expected JSON; restore it or delete it"
        ) from error
    return dict(record)


def published_batches(results: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Streams some columns of the rows of all published runs; files of unpublished runs do not count."""
    return scan(_published_files(results), columns=columns, schema=SCORES)


def _published_files(results: str) -> list[str]:
    records = [info.uri for info in storage.list_objects(uris.join(results, "runs")) if info.uri.endswith(".json")]
    with ThreadPoolExecutor(_RECORDS_AT_ONCE) as pool:
        runs = [json.loads(content) for content in pool.map(storage.read, records)]
    return [uris.join(results, name) for run in runs for name in run["files"]]


def published_rows(results: str, columns: Sequence[str]) -> pa.Table:
    """The same as one table, for those that fit into memory."""
    return read_tables(_published_files(results), columns=columns, schema=SCORES)


def read_tables(files: Sequence[str], *, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Reads Parquet files of one schema into one table, for those that fit into memory."""
    wanted = pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(scan(files, columns=columns, schema=schema), schema=wanted)


def staged_files(results: str, run_id: str) -> list[str]:
    """The files that the pipeline has written for a run."""
    rows = uris.join(staging(results, run_id), "rows")
    return sorted(info.uri for info in storage.list_objects(rows) if info.uri.endswith(".parquet"))


@dataclass(frozen=True)
class Published:
    """What went into the table: file names below the results, and the rows counted."""

    files: tuple[str, ...]
    tally: RunTally


def publish(
    staged: Iterable[pa.RecordBatch],
    *,
    manifest: Callable[[], Iterable[pa.RecordBatch]],
    rows: int,
    plan: ScoringPlan,
    results: str,
    run_date: str,
) -> Published:
    """Writes exactly one row per manifest row into the table, sorted by category and falling score.

    The names depend on the run alone, so that publishing again after a crash overwrites instead of doubling.

    Args:
        staged: STAGED rows, in any order and number.
        manifest: opens a stream of the run's MANIFEST rows, needed only where results are missing.
        rows: how many the manifest has; their image_id are 0 to rows - 1.
        plan: the run's detectors.
        results: base URI of the results.
        run_date: YYYY-MM-DD.

    Raises:
        JobError: the local disk is full.
        StorageError: storage refused or could not be reached.
    """
    tally = RunTally()
    folder = uris.join(results, "scores", f"run_date={run_date}")
    with Scratch() as scratch:
        reconcile(scratch, staged, manifest=manifest, rows=rows, plan=plan)
        written = write_files(
            tally.watch(in_table_order(scratch)),
            rows=rows,
            name=lambda number: uris.join(folder, f"{plan.run_id}-{number:05d}.parquet"),
            folder=scratch.folder,
        )
    _delete_others(folder, plan.run_id, keep=written)
    return Published(tuple(uri[len(results) + 1 :] for uri in written), tally)


def _delete_others(folder: str, run_id: str, *, keep: Sequence[str]) -> None:
    """Deletes what an earlier try to publish this run left beside the files of this one."""
    ours = re.compile(re.escape(uris.join(folder, run_id)) + r"-\d+\.parquet")
    for info in storage.list_objects(folder):
        if ours.fullmatch(info.uri) and info.uri not in keep:
            storage.delete(info.uri)


def run_record(
    published: Published,
    *,
    plan: ScoringPlan,
    config: Mapping[str, Any],
    listed: int,
    started_at: datetime,
    timings_s: Mapping[str, float],
    reported: Reported,
) -> dict[str, Any]:
    """The run record: counts, configuration, detectors, versions and timings of one published run."""
    tally, counts = published.tally, published.tally.counts
    return {
        "run_id": plan.run_id,
        "schema_version": SCHEMA_VERSION,
        "started_at": started_at.isoformat(),
        "published_at": datetime.now(UTC).isoformat(),
        "listed": listed,
        "already_scored": listed - sum(counts.values()),
        "counts": {status.value: counts.get(status, 0) for status in Status},
        "errors": dict(tally.errors.most_common()),
        "anomalies": tally.anomalies,
        "error_rate": error_rate(counts),
        "by_category": {name: dict(found) for name, found in sorted(tally.by_category.items())},
        "images_per_s": reported.steady_per_s,
        "first_scored_at": datetime.fromtimestamp(reported.first_at, UTC).isoformat() if reported.first_at else None,
        "measures": {name: round(value, 3) for name, value in sorted(reported.measures.items())},
        "timings_s": {name: round(seconds, 3) for name, seconds in timings_s.items()},
        "detectors": {name: detector.detector_id for name, detector in plan.by_category.items()},
        "config": dict(config),
        "versions": versions(),
        "files": list(published.files),
    }


def error_rate(counts: Mapping[str, int]) -> float:
    """Share of rows that could not be read or scored: unreadable and failed."""
    total = sum(counts.values())
    return (counts.get(Status.UNREADABLE, 0) + counts.get(Status.FAILED, 0)) / total if total else 0.0


def versions() -> dict[str, str]:
    """Versions that decide a score, for run records and artifacts."""
    names = ("attentdiffernet-ray", "ray", "torch", "torchvision", "FrEIA", "pyarrow", "simplejpeg", "Pillow")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # a checkout run in place, as `ray job submit --working-dir` does
    return {"python": platform.python_version(), **found}


def write_record(record: Mapping[str, Any], *, results: str) -> None:
    """Publishes: from here on the run counts."""
    storage.write(record_uri(results, str(record["run_id"])), json.dumps(record, indent=2).encode())
