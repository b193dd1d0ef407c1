"""The result table as Delta Lake sees it: where it lies, how it is opened and made, and what its errors mean."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
from deltalake import DeltaTable, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from jobs import storage
from jobs.errors import MissingObjectError, RequestError, StorageError
from jobs.results.access import check_conditional_put, make_location, make_storage_options
from jobs.results.errors import explain_delta_error, is_full
from jobs.storage import uris
from jobs.tables.schema import SCHEMA_VERSION, SCORES, define_column

TABLE = "scores"
"""Folder of the result table, below the results."""
RUN_DATE = define_column("run_date", pa.date32(), "day the run began, in UTC")
ROWS = pa.schema([*SCORES, RUN_DATE], metadata=SCORES.metadata)
"""The columns of the table: SCORES and the day."""
LOG = "_delta_log"
HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""No checkpoints: they are Parquet files below the table, and `scores/**/*.parquet` would read them as rows."""
STATISTICS = (
    "image_uri",
    "category",
    "site",
    "status",
    "run_id",
    "detector_id",
    "weights_id",
    "captured_at",
    "scored_at",
    "p_value",
    "tail_rank",
)
"""Columns whose least and greatest value the log keeps for each file, so that readers leave out whole files. Where
the day lies in the files, it is one of them."""
_STATISTICS_PROPERTY = "delta.dataSkippingStatsColumns"
_MAX_AGE_S = 300.0
"""A table is opened anew so often, with the credentials of then."""
_OPEN = threading.local()
_VERSION_KEY = "attentdiffernet.version"
_NOT_READ = ("deletionVectors", "columnMapping")
"""Features that other programs may turn on, and that say in the log what a Parquet file alone does not: which of its
rows are deleted, and how its columns are called. This program reads the files."""


def locate_table(results: str) -> str:
    """Returns the URI of the result table."""
    return uris.join(results, TABLE)


def open_table(results: str) -> DeltaTable | None:
    """Opens the newest version of the result table; None where nothing was ever published.

    Credentials are looked up anew at every call.

    Raises:
        RequestError: what lies there is no table, or one of a newer version.
        StorageError: its log is damaged, or the storage refused.
    """
    uri = locate_table(results)
    with explain_errors(uri):
        try:
            table = DeltaTable(make_location(uri), storage_options=make_storage_options(uri), without_files=False)
        except TableNotFoundError:
            check_no_files(results)
            return None
    check_version(table, uri)
    return table


def open_or_create_table(results: str) -> DeltaTable:
    """Opens the result table, or makes it; adds the columns and the properties that an older version of it lacks.

    Raises:
        RequestError: as for `open_table`, or the storage has no conditional writes.
        StorageError: as for `open_table`.
    """
    table = open_current(results)
    if table is None:
        table = create_table(results)
        remember_table(table, results)
    return add_properties(add_columns(table, results), results)


def open_current(results: str) -> DeltaTable | None:
    """Opens the newest version as `open_table` does, but reads only what is new since this thread did so last.

    The same object is returned again and brought up to date: take from it what is needed before the next call.
    """
    table = refresh_table(results)
    if table is None:
        table = open_table(results)
        if table is not None:
            remember_table(table, results)
    return table


def remember_table(table: DeltaTable, results: str) -> None:
    """Keeps an open table for this thread's next calls: reading a log takes 0.7 ms for each commit in it."""
    # Not the first commit: that of a table whose log another program has cleaned up is gone.
    commit = uris.join(locate_table(results), LOG, f"{table.version():020d}.json")
    with suppress(MissingObjectError):
        etag = storage.read_with_etag(commit)[1]
        _OPEN.tables = {locate_table(results): (table, commit, etag, time.monotonic())}


def refresh_table(results: str) -> DeltaTable | None:
    """Brings up to date the table that this thread has kept; None where it has none, an old one, or another's.

    Raises:
        RequestError: the table is of a newer version now.
        StorageError: the log is damaged, or the storage refused.
    """
    uri = locate_table(results)
    kept: dict[str, tuple[DeltaTable, str, str, float]] = getattr(_OPEN, "tables", {})
    table, commit, etag, since = kept.get(uri, (None, "", "", 0.0))
    if table is None or time.monotonic() - since > _MAX_AGE_S:
        return None
    try:
        if storage.read_with_etag(commit)[1] != etag:
            return None
    except MissingObjectError:
        return None
    if has_newer_commit(table, uri):
        with explain_errors(uri):
            table.update_incremental()
        check_version(table, uri)
    return table


def has_newer_commit(table: DeltaTable, uri: str) -> bool:
    """Tells by a listing whether the log has gone on; deltalake reads again what it holds of the log to tell that."""
    newest = uris.join(uri, LOG, f"{table.version():020d}.json")
    pages = storage.list_between(uris.join(uri, LOG), after=uris.split(newest)[2])
    return any(info.uri > newest and info.uri.endswith(".json") for page in pages for info in page)


def create_table(results: str) -> DeltaTable:
    """Makes an empty table; another process that does the same meanwhile is no error.

    Raises:
        RequestError: the storage has no conditional writes, or does not show what was written to it.
    """
    uri = locate_table(results)
    check_conditional_put(uri)
    with explain_errors(uri, needs="write"), suppress(CommitFailedError):
        DeltaTable.create(
            make_location(uri),
            schema=make_schema(),
            mode="ignore",
            name="scores",
            description="attentdiffernet-ray: one row per photo, box and detector, of all runs",
            configuration=make_properties(has_day_folders=False),
            storage_options=make_storage_options(uri),
        )
    table = open_table(results)
    if table is None:
        raise RequestError(f"{uri} could not be made: the storage does not show what was written to it")
    return table


def has_day_folders(table: DeltaTable) -> bool:
    """Tells whether a table has one folder per day, as those of before: the day of a row is then not in its file."""
    return bool(table.metadata().partition_columns)


def make_properties(*, has_day_folders: bool) -> dict[str, str]:
    """Returns the properties of a table."""
    return {
        "delta.checkpointInterval": "1000000000",
        # deltalake 1.6 takes a column whose statistics the log does not have for one without nulls and values: who asks
        # its dataset for `is_anomaly` or `box IS NULL` gets no row. Of columns that are not named it assumes nothing.
        _STATISTICS_PROPERTY: ",".join(STATISTICS if has_day_folders else (*STATISTICS, RUN_DATE.name)),
    }


def make_schema() -> Schema:
    """Returns the columns of the table: SCORES and the day, with their descriptions as comments."""
    fields = [field.with_metadata(describe_field(field)) for field in ROWS]
    return Schema.from_arrow(pa.schema(fields))


def describe_field(field: pa.Field) -> dict[str, str]:
    """Returns the metadata of a column; that of ``schema_version`` carries the version of all."""
    said = {"comment": (field.metadata or {})[b"description"].decode()}
    return said | ({_VERSION_KEY: str(SCHEMA_VERSION)} if field.name == "schema_version" else {})


def read_version(table: DeltaTable) -> int:
    """Reads the version of a table's columns; 1 where it carries none."""
    found = {field.name: field.metadata or {} for field in table.schema().fields}
    return int(found.get("schema_version", {}).get(_VERSION_KEY, 1))


def check_version(table: DeltaTable, uri: str) -> None:
    """Raises RequestError for a table whose columns are of a newer version than this program knows, or not ours."""
    names = {field.name for field in table.schema().fields}
    if missing := {"image_uri", "status", "scored_at", "run_id", RUN_DATE.name} - names:
        raise RequestError(
            f"{uri} is a Delta table, but not of scores (no column {', '.join(sorted(missing))}): correct --results"
        )
    if (version := read_version(table)) > SCHEMA_VERSION:
        raise RequestError(
            f"{uri} has columns of version {version}, this program knows up to {SCHEMA_VERSION}: update the program"
        )
    check_features(table, uri)
    check_types(table, uri)


def check_features(table: DeltaTable, uri: str) -> None:
    """Raises RequestError for a table whose files must not be read without what its log says of their rows."""
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    has = {*(table.protocol().reader_features or ()), *(["columnMapping"] if mode != "none" else [])}
    if found := [name for name in _NOT_READ if name in has]:
        raise RequestError(
            f"{uri} has the Delta feature {' and '.join(found)}, which another program has turned on and this one does "
            "not read: drop it there (in Spark: ALTER TABLE ... DROP FEATURE ...), or restore the table to a version "
            "before"
        )


def check_types(table: DeltaTable, uri: str) -> None:
    """Raises RequestError for a table with other partitions, or a column of another type, than this program writes."""
    wanted = {field.name: field.type for field in make_schema().fields}
    said = [
        f"the column {field.name} as {describe_type(field.type)}, expected {describe_type(wanted[field.name])}"
        for field in table.schema().fields
        if field.type != wanted.get(field.name, field.type)
    ]
    if (partitions := table.metadata().partition_columns) not in ([], [RUN_DATE.name]):
        said.append(f"partitions by {', '.join(partitions)}, expected none or {RUN_DATE.name}")
    if said:
        raise RequestError(f"{uri} has {said[0]}: another program has changed it, restore a version of before")


def describe_type(kind: object) -> str:
    """Returns the name of a column's type as Delta Lake writes it."""
    return str(getattr(kind, "type", kind))


def add_columns(table: DeltaTable, results: str) -> DeltaTable:
    """Gives a table of an older version the columns that were added since; its rows have null in them."""
    if read_version(table) == SCHEMA_VERSION:
        return table
    uri, names = locate_table(results), {field.name for field in table.schema().fields}
    schema = make_schema()
    with explain_errors(uri):
        if added := [field for field in schema.fields if field.name not in names]:
            table.alter.add_columns(added)
        (last,) = (field for field in schema.fields if field.name == "schema_version")
        table.alter.set_column_metadata("schema_version", {name: str(said) for name, said in last.metadata.items()})
    return table


def add_properties(table: DeltaTable, results: str) -> DeltaTable:
    """Gives a table that was made before they were needed the properties of a new one."""
    properties = make_properties(has_day_folders=has_day_folders(table))
    if table.metadata().configuration.get(_STATISTICS_PROPERTY) != properties[_STATISTICS_PROPERTY]:
        with explain_errors(locate_table(results)), suppress(CommitFailedError):  # another run has done it
            table.alter.set_table_properties(properties)
    return table


def check_no_files(results: str) -> None:
    """Raises RequestError where Parquet files lie in a folder that has no log: they would be overlooked."""
    uri = locate_table(results)
    if any(info.uri.endswith(".parquet") for info in storage.list_objects(uri)):
        raise RequestError(
            f"{uri} has Parquet files and no {LOG}, so it is no table yet: take over results of an earlier version "
            f"with `python -m jobs.table adopt --results {results}`, or restore its {LOG}"
        )


@contextmanager
def explain_errors(uri: str, *, needs: storage.Access = "read") -> Iterator[None]:
    """Turns what deltalake and the storage raise into one line of ours, which names what was needed of ``uri``.

    TableNotFoundError and CommitFailedError pass: whoever can do something about them catches them inside.
    """
    try:
        yield
    except (TableNotFoundError, CommitFailedError):
        raise
    except (DeltaError, OSError, ValueError) as error:
        raise explain_delta_error(error, uri, needs=needs) from error
    except StorageError as error:
        if is_full(error):
            raise explain_delta_error(error, uri, needs=needs) from error
        raise
