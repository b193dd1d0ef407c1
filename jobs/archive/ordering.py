"""Listed objects into manifest rows, on disk: each object once, minus what is settled, ordered by category and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.tables.schema import LISTED, MANIFEST, RETRIED_CODES, SCORES, Status
from jobs.tables.scratch import Scratch

SETTLED = pa.schema([SCORES.field(name) for name in ("image_uri", "image_etag", "image_bytes", "detector_id")])
SETTLED = SETTLED.append(SCORES.field("scored_at"))
EARLIER = [*SETTLED.names, "status", "error"]
"""Columns of earlier runs' rows that decide whether an object is settled."""

_WANTED = pa.schema([MANIFEST.field("category"), SCORES.field("detector_id")])


class Ordering:
    """The objects of one archive in a scratch database.

    Args:
        scratch: the database; its tables ``listed``, ``left_out``, ``settled`` and ``wanted`` are this class's.
    """

    def __init__(self, scratch: Scratch) -> None:
        """Makes the tables."""
        self._scratch = scratch
        scratch.insert("listed", [], schema=LISTED)
        scratch.insert("settled", [], schema=SETTLED)
        scratch.insert("wanted", [], schema=_WANTED)
        scratch.execute("CREATE TABLE left_out (row BIGINT)")

    def add_batches(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Adds LISTED rows."""
        self._scratch.insert("listed", batches, schema=LISTED)

    def drop_duplicates(self) -> None:
        """Keeps the first of the rows that name the same object."""
        self._scratch.execute(
            "INSERT INTO left_out SELECT rowid FROM listed "
            "WHERE rowid NOT IN (SELECT min(rowid) FROM listed GROUP BY image_uri)"
        )

    def list_categories(self) -> set[str]:
        """Returns the categories of what was listed."""
        return {name for (name,) in self._scratch.query("SELECT DISTINCT category FROM listed") if name}

    def drop_settled(self, earlier: Iterable[pa.RecordBatch], detector_ids: Mapping[str, str]) -> None:
        """Leaves out what an earlier published run settled with the same detector.

        An object is settled when its bytes were scored or found unreadable; reasons that lie outside the bytes
        (RETRIED_CODES) are tried again. The same bytes are those of the same entity tag. A list may not know it; then
        the object counts as unchanged unless its size, or a modification after it was scored, says otherwise.

        Args:
            earlier: EARLIER columns of published runs.
            detector_ids: category -> detector id of this run.
        """
        self._scratch.insert("settled", (select_settled(batch) for batch in earlier), schema=SETTLED)
        pairs = {"category": list(detector_ids), "detector_id": list(detector_ids.values())}
        self._scratch.insert("wanted", [pa.record_batch(pairs, schema=_WANTED)], schema=_WANTED)
        same = (
            "INSERT INTO left_out SELECT listed.rowid FROM listed JOIN wanted USING (category) JOIN settled "
            "ON listed.image_uri = settled.image_uri AND wanted.detector_id = settled.detector_id"
        )
        self._scratch.execute(f"{same} AND listed.image_etag = settled.image_etag")
        self._scratch.execute(
            f"{same} WHERE listed.image_etag IS NULL "
            "AND coalesce(listed.image_bytes = settled.image_bytes, true) "
            "AND coalesce(last_modified <= scored_at, true)"
        )

    def count(self) -> int:
        """Counts the rows that are left."""
        return int(self._scratch.query(f"SELECT count(*) FROM {_LEFT}")[0][0])

    def sum_sizes(self) -> list[tuple[str | None, int, int]]:
        """Returns category, objects and bytes of what is left, by category."""
        query = f"SELECT category, count(*), coalesce(sum(image_bytes), 0) FROM {_LEFT} GROUP BY category"
        rows = self._scratch.query(f"{query} ORDER BY category NULLS FIRST")
        return [(category, objects, int(size_bytes)) for category, objects, size_bytes in rows]

    def stream_rows(self) -> Iterator[pa.RecordBatch]:
        """Streams MANIFEST rows in order; image_id is the row number."""
        first = 0
        # Python orders strings by code point, DuckDB by UTF-8 bytes: that is the same.
        query = f"SELECT {', '.join(LISTED.names)} FROM {_LEFT} ORDER BY coalesce(category, ''), image_uri"
        for batch in self._scratch.stream(query, schema=LISTED):
            numbers = pa.array(np.arange(first, first + len(batch)), pa.int64())
            yield pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=MANIFEST)
            first += len(batch)


_LEFT = "listed ANTI JOIN left_out ON listed.rowid = left_out.row"


def select_settled(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Keeps the rows that speak of the bytes themselves: such objects need not be scored again."""
    code = pc.replace_substring_regex(batch.column("error"), ":.*", "")
    is_about_bytes = pc.invert(pc.is_in(code, pa.array(RETRIED_CODES)))
    status = batch.column("status")
    has_no_pixels = pc.is_in(status, pa.array([Status.UNREADABLE, Status.NOT_A_PHOTO], pa.string()))
    is_settled = pc.or_(pc.equal(status, Status.SCORED), pc.and_(has_no_pixels, is_about_bytes))
    return batch.filter(is_settled).select(SETTLED.names)
