"""Listed objects into manifest rows, on disk: each object once, minus what is settled, ordered by category and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa

from jobs.archive.settled import DetectorIds, RetryPolicy, find_settled
from jobs.tables.schema import LISTED, MANIFEST
from jobs.tables.scratch import Scratch


class Ordering:
    """The objects of one archive in a scratch database.

    Args:
        scratch: the database; its tables ``listed``, ``left_out`` and ``retried`` are this class's.
    """

    def __init__(self, scratch: Scratch) -> None:
        """Makes the tables."""
        self._scratch = scratch
        scratch.insert("listed", [], schema=LISTED)
        scratch.execute("CREATE TABLE left_out (row BIGINT)")
        scratch.execute("CREATE TABLE retried (row BIGINT, attempts INTEGER, last_at TIMESTAMPTZ)")

    def add_batches(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Adds LISTED rows."""
        self._scratch.insert("listed", batches, schema=LISTED)

    def drop_duplicates(self) -> None:
        """Keeps the first of the rows that name the same object, and the same box of it."""
        self._scratch.execute(
            "INSERT INTO left_out SELECT rowid FROM listed "
            "WHERE rowid NOT IN (SELECT min(rowid) FROM listed GROUP BY image_uri, box)"
        )

    def has_boxes(self) -> bool:
        """Tells whether any row is of a box."""
        return bool(self._scratch.query("SELECT count(box) > 0 FROM listed")[0][0])

    def list_categories(self) -> set[str]:
        """Returns the categories of what was listed."""
        return {name for (name,) in self._scratch.query("SELECT DISTINCT category FROM listed") if name}

    def drop_settled(
        self,
        known: Iterable[pa.RecordBatch],
        wanted: Mapping[str, DetectorIds],
        *,
        retries: RetryPolicy,
        is_live: bool,
        now: datetime | None = None,
    ) -> None:
        """Leaves out what the result table has settled, and numbers the tries of the rest; see `find_settled`."""
        find_settled(self._scratch, known, wanted, retries=retries, is_live=is_live, now=now)

    def count(self) -> int:
        """Counts the rows that are left."""
        return int(self._scratch.query(f"SELECT count(*) FROM {_LEFT}")[0][0])

    def sum_sizes(self) -> list[tuple[str | None, int, int]]:
        """Returns category, objects and bytes of what is left, by category."""
        query = f"SELECT category, count(*), coalesce(sum(image_bytes), 0) FROM {_LEFT} GROUP BY category"
        rows = self._scratch.query(f"{query} ORDER BY category NULLS FIRST")
        return [(category, objects, int(size_bytes)) for category, objects, size_bytes in rows]

    def stream_rows(self) -> Iterator[pa.RecordBatch]:
        """Streams MANIFEST rows in order; image_id is the row number.

        Boxes of one photo follow each other, also those of different categories, so that it is fetched once.
        """
        first = 0
        # Python orders strings by code point, DuckDB by UTF-8 bytes: that is the same.
        columns = ", ".join(f"listed.{name}" for name in LISTED.names)
        query = (
            f"SELECT {columns}, coalesce(attempts, 0) + 1 AS attempt FROM {_LEFT} "
            f"LEFT JOIN retried ON listed.rowid = retried.row ORDER BY {_BOX_ORDER if self.has_boxes() else _ORDER}"
        )
        schema = LISTED.append(MANIFEST.field("attempt"))
        for batch in self._scratch.stream(query, schema=schema):
            numbers = pa.array(np.arange(first, first + len(batch)), pa.int64())
            yield pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=MANIFEST)
            first += len(batch)


_ORDER = "coalesce(category, ''), image_uri"
_BOX_ORDER = (
    "min(coalesce(category, '')) OVER (PARTITION BY image_uri), image_uri, coalesce(category, ''), box NULLS FIRST"
)
_LEFT = "listed ANTI JOIN left_out ON listed.rowid = left_out.row"
