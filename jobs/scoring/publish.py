"""From staging to the table: reconcile with the manifest, write the files, write the run record last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from jobs import storage
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.reconciliation import in_table_order, reconcile
from jobs.scoring.record import Published, RunTally, staging
from jobs.storage import uris
from jobs.tables.files import write_files
from jobs.tables.scratch import Scratch


def staged_files(results: str, run_id: str) -> list[str]:
    """The files that the pipeline has written for a run."""
    rows = uris.join(staging(results, run_id), "rows")
    return sorted(info.uri for info in storage.list_objects(rows) if info.uri.endswith(".parquet"))


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
