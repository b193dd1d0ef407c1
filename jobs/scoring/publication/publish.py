"""From staging to the table: a slice is reconciled with the manifest and committed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date

import pyarrow as pa

from jobs.results.commit import Committed, commit_slice
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.publication.reconciliation import reconcile, stream_in_order
from jobs.scoring.publication.slices import RunSlice
from jobs.scoring.run_folder import RunFolder
from jobs.tables.scratch import Scratch


def publish_slice(
    part: RunSlice,
    staged: Iterable[pa.RecordBatch],
    *,
    manifest: Callable[[], Iterable[pa.RecordBatch]],
    plan: ScoringPlan,
    folder: RunFolder,
    slice_number: int,
    run_date: date,
    known_since: int,
) -> Committed:
    """Commits exactly one row per manifest row of a slice, in the order of the table's files.

    A slice that an earlier try has committed is not committed again; rows that other runs have committed since
    ``known_since`` are left out.

    Args:
        part: the slice.
        staged: STAGED rows, in any order and number.
        manifest: opens a stream of MANIFEST rows, needed only where results are missing.
        plan: the run's detectors.
        folder: of the run.
        slice_number: of the commit, which the run's id has only once.
        run_date: day of the run, which every row gets.
        known_since: version of the table that the run's manifest was made with; -1 where there was no table.

    Raises:
        JobError: the local disk is full.
        StorageError: storage refused or could not be reached.
    """
    with Scratch() as scratch:
        reconcile(scratch, staged, manifest=manifest, part=part, plan=plan)
        return commit_slice(
            folder.results,
            stream_in_order(scratch),
            run_id=plan.run_id,
            slice_number=slice_number,
            run_date=run_date,
            known_since=known_since,
        )
