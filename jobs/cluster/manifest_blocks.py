"""A manifest with boxes as blocks of whole photos, so that no photo is fetched by two tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data.block import BlockMetadata

from jobs import storage
from jobs.tables.schema import MANIFEST

_METADATA = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
"""Of a block that is not read yet."""


class ManifestBlocks(ray.data.Datasource):
    """Reads MANIFEST rows in blocks of about ``block_rows``, each cut between two photos.

    Ray's own reader cuts blocks by their number of rows alone.

    Args:
        files: URIs of the manifest's parts, in order.
        part_rows: rows of each part but the last.
        rows: of all parts.
        block_rows: rows of a block.
    """

    def __init__(self, files: Sequence[str], *, part_rows: int, rows: int, block_rows: int) -> None:
        """Keeps the arguments; opens nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]  # ray ships no types
        self._files, self._part_rows, self._rows, self._block_rows = list(files), part_rows, rows, block_rows

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self._rows // self._block_rows)

    def estimate_inmemory_data_size(self) -> None:
        """Returns None: not known before it is read."""

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ray.data.ReadTask]:
        """Returns a task for each block, however many are asked for."""
        return [
            ray.data.ReadTask(partial(self.read_block, first), _METADATA, per_task_row_limit=per_task_row_limit)
            for first in range(0, self._rows, self._block_rows)
        ]

    def read_block(self, first: int) -> list[pa.Table]:
        """Reads the photos whose first row is one of the ``block_rows`` from row ``first`` on, as one table."""
        start, end = max(first - 1, 0), min(first + self._block_rows, self._rows)
        batches: list[pa.RecordBatch] = []
        uris: list[str] = []
        for batch in self._stream_rows(start):
            batches.append(batch)
            uris += batch.column("image_uri").to_pylist()
            if len(uris) > end - start and uris[-1] != uris[end - start - 1]:
                break
        low, high = skip_photo(uris, first - start), skip_photo(uris, end - start)
        return [pa.Table.from_batches(batches, schema=MANIFEST).slice(low, high - low)]

    def _stream_rows(self, start: int) -> Iterator[pa.RecordBatch]:
        """Yields the rows from ``start`` on, a row group at a time; those before it are not read."""
        skipped = start % self._part_rows
        for uri in self._files[start // self._part_rows :]:
            filesystem, path = storage.resolve_filesystem(uri)
            with pq.ParquetFile(path, filesystem=filesystem) as file:
                groups = range(file.num_row_groups)
                while groups and skipped >= (rows := file.metadata.row_group(groups[0]).num_rows):
                    groups, skipped = groups[1:], skipped - rows
                for batch in file.iter_batches(row_groups=list(groups), columns=MANIFEST.names):
                    yield batch.slice(skipped)
                    skipped = 0


def skip_photo(uris: Sequence[str], at: int) -> int:
    """Returns the first row from ``at`` on that is of another photo than the row before it."""
    while 0 < at < len(uris) and uris[at] == uris[at - 1]:
        at += 1
    return at


def divide_photos(manifest: pa.Table, block_rows: int) -> list[pa.Table]:
    """Divides MANIFEST rows into tables of about ``block_rows``, each cut between two photos."""
    uris = manifest["image_uri"].to_pylist()
    cuts = sorted({skip_photo(uris, at) for at in range(0, len(uris), block_rows)} | {len(uris)})
    return [manifest.slice(first, end - first) for first, end in pairwise(cuts)]


def read_blocks(files: Iterable[str], *, part_rows: int, rows: int, block_rows: int) -> ray.data.Dataset:
    """Reads a manifest with boxes as a dataset; see `ManifestBlocks`."""
    source = ManifestBlocks(list(files), part_rows=part_rows, rows=rows, block_rows=block_rows)
    dataset: ray.data.Dataset = ray.data.read_datasource(source, override_num_blocks=source.blocks)
    return dataset
