"""What came back against what was asked for, on disk: exactly one row per manifest row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from jobs.scoring.plan import ScoringPlan
from jobs.scoring.staged_rows import assemble_staged
from jobs.tables.schema import MANIFEST, SCORES, STAGED, Status, format_reason
from jobs.tables.scratch import Scratch

_LOST = format_reason("lost", "no result came back for this object; the next run tries it again")


def reconcile(
    scratch: Scratch,
    staged: Iterable[pa.RecordBatch],
    *,
    manifest: Callable[[], Iterable[pa.RecordBatch]],
    rows: int,
    plan: ScoringPlan,
) -> None:
    """Makes the tables ``staged`` and ``kept``: a second copy of a row is not kept, an absent one becomes ``failed``.

    Args:
        scratch: the database.
        staged: STAGED rows, in any order and number.
        manifest: opens a stream of MANIFEST rows.
        rows: how many the manifest has; their image_id are 0 to rows - 1.
        plan: the run's detectors.
    """
    scratch.insert("staged", staged, schema=STAGED)
    scratch.execute("CREATE TABLE kept (image_id BIGINT, row BIGINT)")
    first = "INSERT INTO kept SELECT image_id, min(rowid) FROM staged"
    scratch.execute(f"{first} WHERE image_id BETWEEN 0 AND {rows - 1} GROUP BY image_id")
    ((found,),) = scratch.query("SELECT count(*) FROM kept")
    if found < rows:
        ((before,),) = scratch.query("SELECT coalesce(max(rowid), -1) FROM staged")
        scratch.insert("manifest", manifest(), schema=MANIFEST)
        absent = scratch.stream("SELECT manifest.* FROM manifest ANTI JOIN kept USING (image_id)", schema=MANIFEST)
        scratch.insert("staged", (assemble_lost(batch, plan) for batch in absent), schema=STAGED)
        scratch.execute(f"{first} WHERE rowid > {before} GROUP BY image_id")


def stream_in_order(scratch: Scratch) -> Iterator[pa.RecordBatch]:
    """Yields the reconciled rows as SCORES by category, falling score and uri, so that their order is unique."""
    columns = ", ".join(f"staged.{name}" for name in SCORES.names)
    return scratch.stream(
        f"SELECT {columns} FROM staged SEMI JOIN kept ON staged.rowid = kept.row "
        "ORDER BY category NULLS LAST, score DESC NULLS LAST, image_uri",
        schema=SCORES,
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
