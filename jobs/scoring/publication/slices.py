"""The slices of a run: ranges of its manifest that come into the table one after the other, each in one commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class RunSlice:
    """A range of a run's manifest.

    Attributes:
        number: 0 for the run's first slice.
        first: image_id of its first row.
        rows: how many it has.
    """

    number: int
    first: int
    rows: int

    @property
    def end(self) -> int:
        """The image_id after its last row."""
        return self.first + self.rows


def divide_run(rows: int, slice_photos: int) -> list[RunSlice]:
    """Divides ``rows`` of a manifest, whose image_id begin at 0, into slices of ``slice_photos``."""
    starts = range(0, rows, slice_photos)
    return [RunSlice(number, first, min(slice_photos, rows - first)) for number, first in enumerate(starts)]


def select_rows(batches: Iterable[pa.RecordBatch], part: RunSlice) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a stream, with a column ``image_id``, that belong to a slice."""
    for batch in batches:
        ids = batch.column("image_id")
        is_inside = pc.and_(pc.greater_equal(ids, part.first), pc.less(ids, part.end))
        if pc.any(is_inside).as_py():
            yield batch.filter(is_inside)
