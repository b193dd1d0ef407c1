"""Reading the result table: some columns of its active files, as a stream that is never held as a whole."""

from __future__ import annotations

import sys
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from jobs import storage
from jobs.errors import StorageError
from jobs.results.delta import PARTITION, explain_errors, locate_table, open_current, open_table
from jobs.results.errors import explain_lost_files
from jobs.storage import uris
from jobs.tables.parquet import find_files, scan_parquet
from jobs.tables.schema import SCORES, Status
from jobs.tables.scratch import Scratch
from jobs.tables.text import make_printable

NO_TABLE = -1
"""Version of a table that is not there yet."""
ROWS = pa.schema([*SCORES, PARTITION], metadata=SCORES.metadata)
"""The columns of the table: SCORES and the day."""
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
_OF_FILES = (
    "path",
    "size_bytes",
    f"partition.{PARTITION.name}",
    *(f"{end}.{name}" for name in ("run_id", "image_uri") for end in ("min", "max")),
)
_LISTED = threading.local()
"""The files of the table that this thread has listed last: deltalake takes a tenth of a second for a year of nights."""
_ORDERING = ("image_uri", "image_etag", "box", "status", "scored_at", "run_id")


@dataclass(frozen=True)
class ActiveFile:
    """A file of the table: where it is, its size, its day, the ranges of run ids and photos in it (None: unknown)."""

    uri: str
    size_bytes: int
    day: date
    runs: tuple[str | None, str | None]
    photos: tuple[str | None, str | None] = (None, None)


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
    files, wanted = list_files(table, results), list(columns)
    if days is not None:
        files = [file for file in files if days[0] <= file.day <= days[1]]
    if run_id is None:
        yield from scan_files(files, wanted)
        return
    read = wanted if "run_id" in wanted else [*wanted, "run_id"]
    for batch in scan_files([file for file in files if may_have_run(file, run_id)], read):
        table_rows = pa.Table.from_batches([batch])
        yield from table_rows.filter(pc.field("run_id") == run_id).select(wanted).to_batches()


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
    found = [
        ActiveFile(
            uris.join(uri, action["path"]),
            action["size_bytes"],
            action[f"partition.{PARTITION.name}"],
            (action.get("min.run_id"), action.get("max.run_id")),
            (action.get("min.image_uri"), action.get("max.image_uri")),
        )
        for action in actions.select(wanted).to_pylist()
    ]
    return sorted(found, key=lambda file: file.uri)


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


def may_have_run(file: ActiveFile, run_id: str) -> bool:
    """Tells whether a file may have rows of a run, by the range of run ids in it."""
    first, last = file.runs
    return first is None or last is None or first <= run_id <= last


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
    stored = [name for name in columns if name != PARTITION.name] or ["image_uri"]
    for files_of_day in group_by_day(files) if PARTITION.name in columns else [list(files)]:
        small = [file.uri for file in files_of_day if file.size_bytes < _SMALL_BYTES]
        large = [file.uri for file in files_of_day if file.size_bytes >= _SMALL_BYTES]
        for uris_of_kind in (small, large):
            with explain_lost_files():
                for batch in scan_parquet(uris_of_kind, columns=stored, schema=SCORES, small=uris_of_kind is small):
                    yield add_day(batch, files_of_day[0].day, columns)


def add_day(batch: pa.RecordBatch, day: date, columns: Sequence[str]) -> pa.RecordBatch:
    """Returns the wanted columns of a batch, with its partition's day where that is one of them."""
    if PARTITION.name not in columns:
        return batch
    days = pa.repeat(pa.scalar(day, PARTITION.type), len(batch))
    arrays = [days if name == PARTITION.name else batch.column(name) for name in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=select_fields(columns))


def group_by_day(files: Sequence[ActiveFile]) -> Iterator[list[ActiveFile]]:
    """Yields the files of each day."""
    days: dict[date, list[ActiveFile]] = {}
    for file in files:
        days.setdefault(file.day, []).append(file)
    yield from days.values()
