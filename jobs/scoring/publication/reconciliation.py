"""What came back against what was asked for, on disk: exactly one row per manifest row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from jobs.results.files import ROW_ORDER
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.publication.slices import RunSlice, select_rows
from jobs.scoring.staged_rows import assemble_staged
from jobs.tables.schema import MANIFEST, SCORES, STAGED, Status, format_reason
from jobs.tables.scratch import Scratch

_LOST = format_reason("lost", "no result came back for this object; the next run tries it again")


def reconcile(
    scratch: Scratch,
    staged: Iterable[pa.RecordBatch],
    *,
    manifest: Callable[[], Iterable[pa.RecordBatch]],
    part: RunSlice,
    plan: ScoringPlan,
) -> None:
    """Makes the tables ``staged`` and ``kept``: one copy of a row is kept, an absent one becomes ``failed``.

    Of several copies a scored one is kept, else the first.

    Args:
        scratch: the database.
        staged: STAGED rows, in any order and number.
        manifest: opens a stream of MANIFEST rows.
        part: the rows of the manifest that are wanted.
        plan: the run's detectors.
    """
    scratch.insert("staged", select_rows(staged, part), schema=STAGED)
    scratch.execute("CREATE TABLE kept (image_id BIGINT, row BIGINT)")
    first = f"arg_min(rowid, (status <> '{Status.SCORED}', rowid))"
    keep = f"INSERT INTO kept SELECT image_id, {first} FROM staged"
    scratch.execute(f"{keep} GROUP BY image_id")
    ((found,),) = scratch.query("SELECT count(*) FROM kept")
    if found < part.rows:
        ((before,),) = scratch.query("SELECT coalesce(max(rowid), -1) FROM staged")
        scratch.insert("manifest", select_rows(manifest(), part), schema=MANIFEST)
        absent = scratch.stream("SELECT manifest.* FROM manifest ANTI JOIN kept USING (image_id)", schema=MANIFEST)
        scratch.insert("staged", (assemble_lost(batch, plan) for batch in absent), schema=STAGED)
        scratch.execute(f"{keep} WHERE rowid > {before} GROUP BY image_id")


def stream_in_order(scratch: Scratch) -> Iterator[pa.RecordBatch]:
    """Yields the reconciled rows as SCORES, in the order of the table's files."""
    columns = ", ".join(f"staged.{name}" for name in SCORES.names)
    return scratch.stream(
        f"SELECT {columns} FROM staged SEMI JOIN kept ON staged.rowid = kept.row ORDER BY {ROW_ORDER}", schema=SCORES
    )


def assemble_lost(batch: pa.RecordBatch, plan: ScoringPlan) -> pa.RecordBatch:
    """Returns STAGED rows that say of planned photos that their row was lost."""
    table = pa.Table.from_batches([batch])
    lost = assemble_staged(
        table,
        plan=plan,
        statuses=[Status.FAILED] * len(table),
        errors=[_LOST] * len(table),
        scores=np.full(len(table), np.nan),
    )
    return lost.combine_chunks().to_batches()[0]
