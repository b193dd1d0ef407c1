"""The Parquet files of one slice: written on local disk in full, then put under new names, with their statistics."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from jobs import storage
from jobs.results.delta import ROWS, RUN_DATE, STATISTICS
from jobs.storage import uris
from jobs.tables.files import FILE_BYTES, ROW_GROUP_ROWS, regroup_batches
from jobs.tables.schema import SCORES

ROW_ORDER = "category NULLS LAST, image_uri, box NULLS FIRST"
"""Order of the rows of a slice. Analysts skip row groups by category; and what is known of a photo, or of a range of
keys, lies in few of them."""
_TEXT_BOUNDS = ("", "\U0010ffff")
"""Of texts that are too long for Parquet to keep the least and the greatest of them: between these lies every text."""
UNIQUE = ("image_uri", "image_etag", "image_key")
"""Columns whose values hardly repeat: a dictionary of them takes room, and time of whoever looks for photos."""
_WRITER: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [name for name in ROWS.names if name not in UNIQUE],
}


@dataclass(frozen=True)
class LocalFile:
    """A finished Parquet file on local disk, and what the log says of it."""

    path: Path
    statistics: dict[str, Any]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self.statistics["numRecords"])


def write_local_files(batches: Iterable[pa.RecordBatch], folder: Path) -> list[LocalFile]:
    """Writes what `stream_local_files` yields."""
    return list(stream_local_files(batches, folder))


def stream_local_files(batches: Iterable[pa.RecordBatch], folder: Path) -> Iterator[LocalFile]:
    """Writes rows as files of at most about FILE_BYTES, in order, and yields each when it is done.

    All rows have their day, or none has. One row group is held in memory.
    """
    groups = regroup_batches(batches, size_rows=ROW_GROUP_ROWS)
    group = next(groups, None)
    while group is not None:
        path, schema = folder / f"{uuid.uuid4().hex}.parquet", ROWS if RUN_DATE.name in group.schema.names else SCORES
        with pa.OSFile(str(path), "wb") as sink, pq.ParquetWriter(sink, schema, **_WRITER) as writer:
            writer.write_table(group.cast(schema))
            group = next(groups, None)
            while group is not None and sink.tell() < FILE_BYTES:
                writer.write_table(group.cast(schema))
                group = next(groups, None)
        yield LocalFile(path, read_statistics(path))


def add_day(batches: Iterable[pa.RecordBatch], day: date) -> Iterator[pa.RecordBatch]:
    """Yields SCORES rows as rows of the table, with the day of their run."""
    for batch in batches:
        yield batch.append_column(RUN_DATE, pa.repeat(pa.scalar(day, RUN_DATE.type), len(batch)))


def scan_local_files(files: Iterable[LocalFile]) -> Iterator[pa.RecordBatch]:
    """Streams the rows of files in order."""
    for file in files:
        with pq.ParquetFile(file.path) as opened:
            yield from opened.iter_batches()


def read_statistics(path: Path) -> dict[str, Any]:
    """Reads from a file's footer what Delta's log keeps of it: rows, nulls, least and greatest values."""
    return summarize_footer(pq.read_metadata(path))


def summarize_footer(footer: pq.FileMetaData) -> dict[str, Any]:
    """Returns what Delta's log keeps of a file, from its footer; columns that it lacks are null in all its rows."""
    names = {footer.schema.column(number).name: number for number in range(footer.num_columns)}
    least, greatest, nulls = {}, {}, dict.fromkeys(STATISTICS, footer.num_rows)
    for name in (name for name in (*STATISTICS, RUN_DATE.name) if name in names):
        groups = [footer.row_group(number).column(names[name]).statistics for number in range(footer.num_row_groups)]
        known = [found for found in groups if found is not None and found.has_min_max]
        nulls[name] = sum(found.null_count for found in groups if found is not None)
        if known and nulls[name] + sum(found.num_values for found in known) == footer.num_rows:
            least[name] = format_value(min(found.min for found in known))
            greatest[name] = format_value(max(found.max for found in known))
        elif nulls[name] < footer.num_rows and ROWS.field(name).type == pa.string():
            least[name], greatest[name] = _TEXT_BOUNDS
    return {"numRecords": footer.num_rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}


def format_value(value: Any) -> Any:
    """Formats a value as Delta's statistics do: days and times in ISO 8601, these with microseconds."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value


def leave_out_day(files: list[LocalFile]) -> list[LocalFile]:
    """Returns local files without the day of their rows, for a table whose folders say it."""
    rows = (batch.drop_columns([RUN_DATE.name]) for batch in scan_local_files(files))
    return write_local_files(rows, files[0].path.parent) if files else files


def put_files(files: Iterable[LocalFile], table: str, *, name: str, day: date | None = None) -> list[AddAction]:
    """Puts local files into the table's folder under names that were never used; nothing counts before the commit.

    Args:
        files: finished files.
        table: URI of the table.
        name: what the names begin with, see `jobs.results.orphans`.
        day: whose folder takes them; None for files that have the day of each row.
    """
    token, values = uuid.uuid4().hex[:12], {RUN_DATE.name: day.isoformat()} if day else {}
    folder = "".join(f"{column}={value}/" for column, value in values.items())
    actions = []
    for number, file in enumerate(files):
        path = f"{folder}{name}-{token}-{number:05d}.parquet"
        storage.upload(uris.join(table, path), file.path)
        size, at = file.path.stat(), json.dumps(file.statistics)
        actions.append(AddAction(path, size.st_size, values, int(size.st_mtime * 1000), True, at))
    return actions
