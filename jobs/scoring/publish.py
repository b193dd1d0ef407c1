"""From staging to the table: reconcile with the manifest, write the files, write the run record last."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date

import pyarrow as pa

from jobs import storage
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.reconciliation import reconcile, stream_in_order
from jobs.scoring.record import Published, RunTally
from jobs.scoring.run_folder import RunFolder
from jobs.storage import uris
from jobs.tables.files import write_files
from jobs.tables.scratch import Scratch


def list_staged_files(folder: RunFolder) -> list[str]:
    """Lists the files that the pipeline has written for a run, sorted."""
    return sorted(info.uri for info in storage.list_objects(folder.rows) if info.uri.endswith(".parquet"))


def publish_rows(
    staged: Iterable[pa.RecordBatch],
    *,
    manifest: Callable[[], Iterable[pa.RecordBatch]],
    rows: int,
    plan: ScoringPlan,
    folder: RunFolder,
    run_date: date,
) -> Published:
    """Writes exactly one row per manifest row into the table, sorted by category and falling score.

    The names depend on the run alone, so that publishing again after a crash overwrites instead of doubling.

    Args:
        staged: STAGED rows, in any order and number.
        manifest: opens a stream of the run's MANIFEST rows, needed only where results are missing.
        rows: how many the manifest has; their image_id are 0 to rows - 1.
        plan: the run's detectors.
        folder: of the run.
        run_date: the table's partition that takes them.

    Raises:
        JobError: the local disk is full.
        StorageError: storage refused or could not be reached.
    """
    tally = RunTally()
    with Scratch() as scratch:
        reconcile(scratch, staged, manifest=manifest, rows=rows, plan=plan)
        written = write_files(
            tally.watch(stream_in_order(scratch)),
            rows=rows,
            name=lambda number: folder.table_file(run_date, number),
            folder=scratch.folder,
        )
    delete_leftovers(folder, run_date, keep=written)
    return Published(tuple(uri[len(folder.results) + 1 :] for uri in written), tally)


def delete_leftovers(folder: RunFolder, run_date: date, *, keep: Sequence[str]) -> None:
    """Deletes what an earlier try to publish this run left beside the files of this one."""
    partition = folder.partition(run_date)
    ours = re.compile(re.escape(uris.join(partition, folder.run_id)) + r"-\d+\.parquet")
    for info in storage.list_objects(partition):
        if ours.fullmatch(info.uri) and info.uri not in keep:
            storage.delete(info.uri)
