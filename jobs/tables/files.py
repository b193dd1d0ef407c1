"""The files of the result table: of even size, with row groups that query engines can skip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage

ROW_GROUP_ROWS = 100_000
FILE_BYTES = 320_000_000
"""Files are as near to this as an even division allows: 213-480 MB, within the 128-512 MB that query engines like."""


def regroup_batches(batches: Iterable[pa.RecordBatch], *, size_rows: int) -> Iterator[pa.Table]:
    """Regroups a stream into tables of ``size_rows`` rows, the last one of what is left."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        while rows >= size_rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, size_rows).combine_chunks()
            waiting = table.slice(size_rows).combine_chunks().to_batches()
            rows -= size_rows
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


def write_files(batches: Iterable[pa.RecordBatch], *, rows: int, name: Callable[[int], str], folder: Path) -> list[str]:
    """Writes a stream as one file if it is small, else as files of even size; returns their URIs.

    The first row group tells how many bytes a row takes. A file is finished on local disk before it is put, so that
    none is seen half written.

    Args:
        batches: the stream.
        rows: how many rows it has.
        name: gives the URI of the first, second ... file, which it is told as 0, 1 ...
        folder: a private folder for the file that is being written.
    """
    found: list[str] = []
    groups = regroup_batches(batches, size_rows=ROW_GROUP_ROWS)
    group = next(groups, None)
    per_file = 0
    while group is not None:
        local = folder / "file.parquet"
        with pa.OSFile(str(local), "wb") as sink, pq.ParquetWriter(sink, group.schema, compression="zstd") as writer:
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            per_file = per_file or divide_groups(sink.tell() / len(group), rows=rows)
            group = next(groups, None)
            for _ in range(per_file - 1):
                if group is None:
                    break
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                group = next(groups, None)
        found.append(name(len(found)))
        storage.upload(found[-1], local)
        local.unlink()
    return found


def divide_groups(row_bytes: float, *, rows: int) -> int:
    """Returns the row groups of one file, so that all files are about FILE_BYTES large and of even size."""
    files = max(1, round(row_bytes * rows / FILE_BYTES))
    return math.ceil(math.ceil(rows / ROW_GROUP_ROWS) / files)
