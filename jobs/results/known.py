"""Reading the result table: some columns of its active files, as a stream that is never held as a whole."""

from __future__ import annotations

import sys
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs import storage
from jobs.errors import StorageError
from jobs.results.delta import ROWS, RUN_DATE, explain_errors, locate_table, open_current, open_table
from jobs.results.errors import explain_lost_files
from jobs.storage import uris
from jobs.tables.parquet import find_files, scan_parquet
from jobs.tables.schema import Status
from jobs.tables.scratch import Scratch
from jobs.tables.text import make_printable

NO_TABLE = -1
"""Version of a table that is not there yet."""
_NEWEST_FIRST = "PARTITION BY image_uri, box ORDER BY scored_at DESC, run_id DESC"
NEWEST = f"row_number() OVER ({_NEWEST_FIRST}) = 1"
"""What makes a row the newest of its photo and box."""
_LATEST = f"""SELECT * FROM (
    SELECT *, first_value(status) OVER ({_NEWEST_FIRST}) AS newest_status,
        first_value(image_etag) OVER ({_NEWEST_FIRST}) AS newest_etag
    FROM scores
) QUALIFY row_number() OVER (
    PARTITION BY image_uri, box
    ORDER BY newest_status NOT IN ('{Status.DELETED}', '{Status.MISSING}') AND status = '{Status.SCORED}'
        AND coalesce(image_etag = newest_etag, true) DESC, scored_at DESC, run_id DESC
) = 1"""
"""The latest row of each photo and box, as the view of infra/analyst/views.sql has it: the newest, but no failed try
hides the score of the same bytes."""
_SMALL_BYTES = 16_000_000
_FOLDER_DAY = f"partition.{RUN_DATE.name}"
_NEWEST = "max.scored_at"
_OF_FILES = (
    *("path", "size_bytes", _FOLDER_DAY, _NEWEST),
    *(f"{end}.{name}" for name in ("run_id", "image_uri", RUN_DATE.name) for end in ("min", "max")),
)
_LISTED = threading.local()
"""The files of the table that this thread has listed last: deltalake takes a tenth of a second for a year of nights."""
_ORDERING = ("image_uri", "image_etag", "box", "status", "scored_at", "run_id")


@dataclass(frozen=True)
class ActiveFile:
    """A file of the table.

    Attributes:
        uri: where it is.
        path: the same as the log writes it: below the table, percent-encoded.
        size_bytes: how large it is.
        folder_day: the day of all its rows, which its folder says; None where the file has the day of each row.
        days, runs, photos: least and greatest day, run id and image_uri in it; None where that is unknown.
        newest: when the newest of its rows was scored; None where that is unknown.
    """

    uri: str
    path: str
    size_bytes: int
    folder_day: date | None
    days: tuple[date | None, date | None]
    runs: tuple[str | None, str | None]
    photos: tuple[str | None, str | None] = (None, None)
    newest: datetime | None = None


def stream_known(
    results: str, columns: Sequence[str], *, version: int | None = None, photos: pa.Array | None = None
) -> tuple[int, Iterator[pa.RecordBatch]]:
    """Opens a stream of some columns of all rows; returns it with the table's version, which a commit names later.

    A file that is lost does not end the run: it is named on stderr, and its photos count as new.

    Args:
        results: base URI of the results.
        columns: of ``ROWS``.
        version: an earlier version of the table instead of the newest.
        photos: image_uri of those whose rows are wanted, if they are few; rows of others may come too. Then one column
            of all files is read, and the others of those files alone that have one of them.

    Returns:
        The version, ``NO_TABLE`` where there is no table yet, and the stream.

    Raises:
        RequestError: what lies there is no table, or one of a newer version.
        StorageError: the log is damaged, or the storage refused.
    """
    table = open_version(results, version)
    if table is None:
        return NO_TABLE, iter(())
    found, files = table.version(), leave_out_lost(list_files(table, results), results)
    if photos is not None:
        files = select_files(files, photos)
    return found, scan_files(files, columns)


def stream_rows(
    results: str,
    columns: Sequence[str],
    *,
    run_id: str | None = None,
    version: int | None = None,
    days: tuple[date, date] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Streams some columns of all rows, or of those of one run.

    Args:
        results: base URI of the results.
        columns: of ``ROWS``.
        run_id: the run whose rows are wanted; files that have none of them are not opened.
        version: an earlier version of the table instead of the newest.
        days: first and last day of the runs whose rows are wanted; files of other days are not opened.

    Raises:
        MissingObjectError: a file of the table is lost.
        RequestError, StorageError: as for `stream_known`.
    """
    table = open_version(results, version)
    if table is None:
        return
    bounds: dict[str, tuple[Any, Any]] = {"run_id": (run_id, run_id)} if run_id is not None else {}
    if days is not None:
        bounds[RUN_DATE.name] = days
    files = list_files(table, results)
    for name, (first, last) in bounds.items():
        files = [file for file in files if may_have_between(file.runs if name == "run_id" else file.days, first, last)]
    for batch in scan_files(files, [*columns, *(name for name in bounds if name not in columns)]):
        yield from select_between(batch, bounds).select(list(columns)).to_batches()


def stream_latest(results: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Streams the latest row of each photo and box, put in order on local disk.

    That is the newest one, or, where it has no score, the newest score of the same bytes: a damaged detector or a
    storage that refused says nothing of a photo. A photo that is deleted or missing has no score that holds.

    Raises:
        MissingObjectError, RequestError, StorageError: as for `stream_rows`.
    """
    read = [*columns, *(name for name in _ORDERING if name not in columns)]
    schema = select_fields(read)
    with Scratch() as scratch:
        scratch.insert("scores", stream_rows(results, read), schema=schema)
        names = ", ".join(columns)
        yield from scratch.stream(
            f"SELECT {names} FROM ({_LATEST}) ORDER BY image_uri, box NULLS FIRST",
            schema=select_fields(columns),
        )


def read_rows(results: str, columns: Sequence[str], *, run_id: str | None = None) -> pa.Table:
    """Reads what `stream_rows` streams into one table, for those that fit into memory."""
    return pa.Table.from_batches(stream_rows(results, columns, run_id=run_id), schema=select_fields(columns))


def read_latest(results: str, columns: Sequence[str]) -> pa.Table:
    """Reads the latest row of each photo and box into one table, for those that fit into memory."""
    return pa.Table.from_batches(stream_latest(results, columns), schema=select_fields(columns))


def select_between(batch: pa.RecordBatch, bounds: Mapping[str, tuple[Any, Any]]) -> pa.Table:
    """Returns the rows of a batch whose values lie between the least and the greatest that are wanted of a column."""
    table = pa.Table.from_batches([batch])
    for name, (first, last) in bounds.items():
        table = table.filter((pc.field(name) >= first) & (pc.field(name) <= last))
    return table


def select_fields(columns: Sequence[str]) -> pa.Schema:
    """Returns the schema of some columns of ``ROWS``."""
    return pa.schema([ROWS.field(name) for name in columns])


def open_version(results: str, version: int | None) -> DeltaTable | None:
    """Opens the newest version of the table, or an earlier one; None where there is no table."""
    table = open_current(results)
    if version is None or table is None or table.version() == version:
        return table
    earlier = open_table(results)
    if earlier is not None:
        with explain_errors(locate_table(results)):
            earlier.load_as_version(version)
    return earlier


def list_files(table: DeltaTable, results: str) -> list[ActiveFile]:
    """Lists the files of an open table, in the order of their names; reads the list of each version once."""
    kept, version, files = getattr(_LISTED, "last", (None, -1, []))
    if kept is None or kept() is not table or version != table.version():
        files = read_files(table, results)
        _LISTED.last = weakref.ref(table), table.version(), files
    return list(files)


def read_files(table: DeltaTable, results: str) -> list[ActiveFile]:
    """Reads the list of files from what deltalake holds of the log."""
    uri = locate_table(results)
    with explain_errors(uri):
        actions = pa.table(table.get_add_actions(flatten=True))
    wanted = [name for name in _OF_FILES if name in actions.column_names]
    found = [describe_active(uri, action) for action in actions.select(wanted).to_pylist()]
    return sorted(found, key=lambda file: file.uri)


def describe_active(uri: str, action: Mapping[str, Any]) -> ActiveFile:
    """Returns what counts of what the log of the table ``uri`` says of a file."""
    day, path = action.get(_FOLDER_DAY), action["path"]
    days, runs, photos = (
        (action.get(f"min.{name}"), action.get(f"max.{name}")) for name in (RUN_DATE.name, "run_id", "image_uri")
    )
    place, days, newest = uris.join(uri, unquote(path)), (day, day) if day else days, action.get(_NEWEST)
    return ActiveFile(place, path, action["size_bytes"], day, days, runs, photos, newest)


def select_files(files: Sequence[ActiveFile], photos: pa.Array) -> list[ActiveFile]:
    """Selects the files that have one of some photos; those whose range has none are not opened."""
    ordered = sorted(photos.to_pylist())
    near = [file for file in files if may_have_photo(file, ordered)]
    with explain_lost_files():
        names = find_files([file.uri for file in near], column="image_uri", values=photos)
    return [file for file in near if file.uri in names]


def may_have_photo(file: ActiveFile, ordered: Sequence[str]) -> bool:
    """Tells whether a file may have one of some photos, in order, by the range of photos in it."""
    first, last = file.photos
    return first is None or last is None or bisect_left(ordered, first) < bisect_right(ordered, last)


def may_have_between(range_of_file: tuple[Any, Any], first: Any, last: Any) -> bool:
    """Tells whether a file may have a value from ``first`` to ``last``, by the range of its values (None: unknown)."""
    least, greatest = range_of_file
    return least is None or greatest is None or bool(least <= last and first <= greatest)


def leave_out_lost(files: Sequence[ActiveFile], results: str) -> list[ActiveFile]:
    """Leaves out files that the storage does not have any more, and says so.

    Raises:
        StorageError: the table has been compacted and cleaned since it was opened, so that its files are elsewhere.
    """
    there = {info.uri for info in storage.list_objects(locate_table(results))}
    lost = [file for file in files if file.uri not in there]
    if lost:
        table = open_table(results)
        active = {file.uri for file in list_files(table, results)} if table else set()
        if any(file.uri not in active for file in lost):
            raise StorageError(f"{locate_table(results)} was compacted and vacuumed while it was read: run again")
        print(
            f"warning: {len(lost)} files of {locate_table(results)} are lost, such as {make_printable(lost[0].uri)}: "
            "their photos count as new; restore them, or take them out of the table with `python -m jobs.table repair`",
            file=sys.stderr,
            flush=True,
        )
    return [file for file in files if file.uri in there]


def scan_files(files: Sequence[ActiveFile], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Streams some columns of files: many small ones at once, large ones by row groups.

    Raises:
        DamagedFileError, MissingObjectError: a file is damaged or lost; the error says what to do.
    """
    is_dated = RUN_DATE.name in columns
    for day, group in group_by_folder(files).items() if is_dated else [(None, files)]:
        stored = [name for name in columns if day is None or name != RUN_DATE.name] or ["image_uri"]
        small = [file.uri for file in group if file.size_bytes < _SMALL_BYTES]
        large = [file.uri for file in group if file.size_bytes >= _SMALL_BYTES]
        for uris_of_kind in (small, large):
            with explain_lost_files():
                for batch in scan_parquet(uris_of_kind, columns=stored, schema=ROWS, small=uris_of_kind is small):
                    yield batch if day is None else add_folder_day(batch, day, columns)


def add_folder_day(batch: pa.RecordBatch, day: date, columns: Sequence[str]) -> pa.RecordBatch:
    """Returns the wanted columns of a batch, with the day that its folder says."""
    days = pa.repeat(pa.scalar(day, RUN_DATE.type), len(batch))
    arrays = [days if name == RUN_DATE.name else batch.column(name) for name in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=select_fields(columns))


def group_by_folder(files: Sequence[ActiveFile]) -> dict[date | None, list[ActiveFile]]:
    """Returns the files of each day's folder, and below None those that have the day of each row."""
    days: dict[date | None, list[ActiveFile]] = {}
    for file in files:
        days.setdefault(file.folder_day, []).append(file)
    return days
