"""From staging to the table: reconcile with the manifest, write the files, write the run record last."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from jobs import storage, uris
from jobs.errors import MissingObjectError, StorageError
from jobs.manifest import write_parquet
from jobs.plan import ScoringPlan
from jobs.progress import Reported
from jobs.schema import SCHEMA_VERSION, SCORES, STAGED, Status, reason
from jobs.stages import staged_rows

ROWS_PER_FILE = 2_000_000
"""About 200 MB of zstd Parquet, within the 128-512 MB that query engines like."""


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


def published_rows(results: str, columns: Sequence[str]) -> pa.Table:
    """The rows of all published runs, some columns; files of unpublished runs do not count."""
    listed = storage.list_objects(uris.join(results, "runs"))
    runs = [json.loads(storage.read(info.uri)) for info in listed if info.uri.endswith(".json")]
    files = [uris.join(results, name) for run in runs for name in run["files"]]
    return read_tables(files, columns=columns, schema=SCORES)


def read_tables(files: Sequence[str], *, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    """Reads Parquet files of one schema into one table."""
    if not files:
        return schema.empty_table().select(list(columns))
    filesystem = storage.arrow_filesystem(files[0])[0]
    paths = [storage.arrow_filesystem(uri)[1] for uri in files]
    return pyarrow.dataset.dataset(paths, schema=schema, filesystem=filesystem).to_table(columns=list(columns))


def staged_table(results: str, run_id: str) -> pa.Table:
    """Everything that the pipeline has written for a run."""
    rows = uris.join(staging(results, run_id), "rows")
    files = [info.uri for info in storage.list_objects(rows) if info.uri.endswith(".parquet")]
    return read_tables(files, columns=STAGED.names, schema=STAGED)


def reconcile(staged: pa.Table, *, manifest: pa.Table, plan: ScoringPlan) -> pa.Table:
    """Exactly one STAGED row per manifest row: a second copy is dropped, an absent one becomes ``failed``."""
    ids = staged["image_id"].to_numpy()
    _, first = np.unique(ids, return_index=True)
    absent = manifest.filter(pc.invert(pc.is_in(manifest["image_id"], staged["image_id"].combine_chunks())))
    lost = staged_rows(
        absent,
        run_id=plan.run_id,
        planned=[plan.by_category.get(category or "") for category in absent["category"].to_pylist()],
        statuses=[Status.FAILED] * len(absent),
        errors=[reason("lost", "no result came back for this object; the next run tries it again")] * len(absent),
        scores=np.full(len(absent), np.nan),
    )
    return pa.concat_tables([staged.take(pa.array(first)), lost])


def publish(
    staged: pa.Table, *, manifest: pa.Table, plan: ScoringPlan, results: str, run_date: str
) -> tuple[pa.Table, list[str]]:
    """Writes the reconciled rows into the table; returns them and the file names below ``results``.

    The names depend on the run alone, so that publishing again after a crash overwrites instead of doubling.
    """
    rows = reconcile(staged, manifest=manifest, plan=plan)
    rows = rows.sort_by([("category", "ascending"), ("score", "descending")]).select(SCORES.names).cast(SCORES)
    files = []
    for number in range(math.ceil(len(rows) / ROWS_PER_FILE)):
        name = f"scores/run_date={run_date}/{plan.run_id}-{number:04d}.parquet"
        write_parquet(rows.slice(number * ROWS_PER_FILE, ROWS_PER_FILE), uris.join(results, name))
        files.append(name)
    return rows, files


def run_record(
    rows: pa.Table,
    *,
    plan: ScoringPlan,
    config: Mapping[str, Any],
    files: Sequence[str],
    listed: int,
    started_at: datetime,
    timings_s: Mapping[str, float],
    reported: Reported,
) -> dict[str, Any]:
    """The run record: counts, configuration, detectors, versions and timings of one published run."""
    counts = Counter(rows["status"].to_pylist())
    return {
        "run_id": plan.run_id,
        "schema_version": SCHEMA_VERSION,
        "started_at": started_at.isoformat(),
        "published_at": datetime.now(UTC).isoformat(),
        "listed": listed,
        "already_scored": listed - len(rows),
        "counts": {status.value: counts.get(status, 0) for status in Status},
        "anomalies": pc.sum(pc.fill_null(rows["is_anomaly"], False)).as_py() or 0,
        "error_rate": error_rate(counts),
        "images_per_s": reported.steady_per_s,
        "first_scored_at": datetime.fromtimestamp(reported.first_at, UTC).isoformat() if reported.first_at else None,
        "measures": {name: round(value, 3) for name, value in sorted(reported.measures.items())},
        "timings_s": {name: round(seconds, 3) for name, seconds in timings_s.items()},
        "detectors": {name: detector.detector_id for name, detector in plan.by_category.items()},
        "config": dict(config),
        "versions": versions(),
        "files": list(files),
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
