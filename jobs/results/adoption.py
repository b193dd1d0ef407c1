"""Tables of before Delta Lake: files counted that a run record named. They become one table where they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, Transaction
from deltalake.transaction import AddAction, create_table_with_add_actions

from jobs import storage
from jobs.errors import RequestError, StorageError
from jobs.results.access import check_conditional_put, make_location, make_storage_options
from jobs.results.delta import RUN_DATE, explain_errors, locate_table, make_properties, make_schema, open_table
from jobs.results.files import summarize_footer
from jobs.results.orphans import list_data_files
from jobs.results.runs import RECORDS, RECORDS_AT_ONCE, list_records
from jobs.storage import ObjectInfo, uris

_NAME = re.compile(rf"scores/(?P<path>{RUN_DATE.name}=(?P<day>\d{{4}}-\d\d-\d\d)/[\w.+-]+\.parquet)")
_NEEDED = ("image_uri", "image_etag", "status", "scored_at", "run_id")
_AT_ONCE = 16
"""Files whose footers are read at once."""


@dataclass(frozen=True)
class Adopted:
    """What adoption came to.

    Attributes:
        files: in the table now.
        rows: in them.
        lost: files that run records name and that are not there any more.
        leftovers: files that no record names: of runs that never ended.
    """

    files: int
    rows: int
    lost: tuple[str, ...]
    leftovers: int


def adopt_table(results: str) -> Adopted:
    """Makes a Delta table of the files that run records name, in one commit; moves and changes no file.

    The day of their rows is in the names of their folders alone, so the table keeps these.

    Raises:
        RequestError: there is a Delta table already, or no run record names a file, or a file has other columns.
        StorageError: a record is damaged, or the storage refused.
    """
    uri = locate_table(results)
    check_absent(results)
    names = list_recorded_names(results)
    if not names:
        raise RequestError(f"no record in {uris.join(results, RECORDS)} names a file of a table: nothing to adopt")
    there = {info.uri: info for info in list_data_files(results)}
    found = {name: there[uris.join(results, name)] for name in names if uris.join(results, name) in there}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        actions = list(pool.map(describe_file, found.keys(), found.values()))
    check_conditional_put(uri)
    with explain_errors(uri):
        create_table_with_add_actions(
            make_location(uri),
            schema=make_schema(),
            add_actions=actions,
            mode="error",
            partition_by=[RUN_DATE.name],
            name="scores",
            configuration=make_properties(has_day_folders=True),
            storage_options=make_storage_options(uri),
            commit_properties=CommitProperties(app_transactions=[Transaction("adopted", 0)]),
        )
    rows = sum(int(json.loads(action.stats)["numRecords"]) for action in actions)
    return Adopted(len(actions), rows, tuple(sorted(set(names) - found.keys())), len(there) - len(found))


def check_absent(results: str) -> None:
    """Raises RequestError where there is a Delta table already."""
    try:
        table = open_table(results)
    except RequestError:
        return  # what adoption is for: files without a log
    if table is not None:
        raise RequestError(f"{locate_table(results)} is a Delta table already: nothing to adopt")


def list_recorded_names(results: str) -> list[str]:
    """Lists the files that the run records of before name, below the results."""
    with ThreadPoolExecutor(RECORDS_AT_ONCE) as pool:
        return [name for names in pool.map(read_names, list_records(results)) for name in names]


def read_names(record: str) -> Iterable[str]:
    """Reads the files that a run record names.

    Raises:
        StorageError: it is damaged, or storage refused.
    """
    try:
        return [str(name) for name in json.loads(storage.read(record)).get("files", [])]
    except (ValueError, AttributeError, TypeError) as error:
        raise StorageError(f"{record} is damaged: expected JSON; restore it or delete it") from error


def describe_file(name: str, info: ObjectInfo) -> AddAction:
    """Describes a file of before for the log, with the statistics of its footer.

    Raises:
        RequestError: it is no file of a result table that this program knows.
    """
    found = _NAME.fullmatch(name)
    footer = read_footer(info.uri)
    columns = set(footer.schema.to_arrow_schema().names)
    if found is None or (missing := set(_NEEDED) - columns):
        why = f"it lacks {', '.join(sorted(missing))}" if found else "its name has no day"
        raise RequestError(f"{info.uri} is no file of a result table of an earlier version that is known: {why}")
    stats = json.dumps(summarize_footer(footer))
    at = int(info.last_modified.timestamp() * 1000)
    return AddAction(found["path"], info.size_bytes, {RUN_DATE.name: found["day"]}, at, True, stats)


def read_footer(uri: str) -> Any:
    """Reads the footer of a Parquet file. Raises RequestError for what is none, StorageError where it is lost."""
    filesystem, path = storage.resolve_filesystem(uri)
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            return file.metadata
    except pa.ArrowInvalid as error:
        raise RequestError(f"{uri} is no Parquet file: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise storage.translate_error(error, uri) from error
