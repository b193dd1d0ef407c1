"""A CSV or Parquet list of URIs as an archive: column ``image_uri``, and whatever else of LISTED it knows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.archive.keys import parse_keys, parse_time
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.tables import parquet as tables
from jobs.tables.schema import LISTED

_URI = r"^((s3|gs|az)://[^/]+/.|file:///.)"
OLDER_NAMES = {"image_uri": "uri", "image_etag": "etag", "image_bytes": "size_bytes"}
"""What lists may call the columns too, as they did before all tables had one name for each."""
_TIMES = ("last_modified", "captured_at")


def read_list(archive: str, *, pattern: re.Pattern[str]) -> Iterator[pa.RecordBatch]:
    """Streams a list as LISTED batches; columns that it does not have are null, those that LISTED lacks are ignored.

    Args:
        archive: URI of the list, ``.csv`` (with a line of names), ``.csv.gz`` or ``.parquet``.
        pattern: matched at the beginning of each key for the category, site and captured_at that the list leaves open.

    Raises:
        RequestError: it has no column image_uri, or a value that cannot be what its column says.
        StorageError: it is missing or cannot be reached.
    """
    rows = 0
    for batch in _read_parquet(archive) if archive.endswith(".parquet") else _read_csv(archive):
        if len(batch):
            yield to_listed(batch, pattern, place=f"{archive}, rows from {rows + 1}")
        rows += len(batch)


def select_known(names: list[str], archive: str) -> list[str]:
    """Returns those columns of a list that LISTED has too, as the list names them."""
    known = [name if name in names else OLDER_NAMES.get(name, name) for name in LISTED.names]
    if known[0] not in names:
        raise RequestError(f"the list {archive} has no column image_uri: got {', '.join(names) or 'nothing'}")
    return [name for name in known if name in names]


def _read_parquet(archive: str) -> Iterator[pa.RecordBatch]:
    have = tables.read_schema(archive)
    yield from tables.scan_parquet([archive], columns=select_known(have.names, archive), schema=have)


def _read_csv(archive: str) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    try:
        with storage.open_stream(archive) as stream:
            names = csv.open_csv(stream).schema.names
        known = select_known(names, archive)
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(known, pa.string()),
            include_columns=known,
            strings_can_be_null=True,
            null_values=[""],
        )
        with storage.open_stream(archive) as stream:
            yield from csv.open_csv(stream, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise RequestError(f"the list {archive} is no CSV: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise storage.translate_error(error, archive) from error


def to_listed(batch: pa.RecordBatch, pattern: re.Pattern[str], *, place: str) -> pa.RecordBatch:
    """Converts rows of a list to LISTED rows; the key fills in what the list leaves open."""
    names = {older: name for name, older in OLDER_NAMES.items()}
    have = {names.get(name, name): values for name, values in zip(batch.schema.names, batch.columns, strict=True)}
    columns = {
        field.name: to_column(have[field.name], field, place=place)
        if field.name in have
        else pa.nulls(len(batch), field.type)
        for field in LISTED
    }
    check_uris(columns["image_uri"], place=place)
    if columns["category"].null_count:
        named = parse_keys([uris.split(uri)[2] for uri in columns["image_uri"].to_pylist()], pattern)
        for name, values in named.items():
            columns[name] = pc.coalesce(columns[name], pa.array(values, LISTED.field(name).type))
    return pa.record_batch(columns, schema=LISTED)


def to_column(column: pa.Array, field: pa.Field, *, place: str) -> pa.Array:
    """Converts one column of a list to the type that LISTED gives it."""
    try:
        if field.name in _TIMES and pa.types.is_string(column.type):
            return pa.array([parse_time(text) for text in column.to_pylist()], field.type)
        found = column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise RequestError(f"column {field.name} of {place}: {str(error).splitlines()[0]}") from error
    # As in a listing: entity tags without quotes, and nothing said is nothing known.
    found = pc.utf8_trim(found, '"') if field.name == "image_etag" else found
    return pc.if_else(pc.equal(found, ""), None, found) if pa.types.is_string(field.type) else found


def check_uris(found: pa.Array, *, place: str) -> None:
    """Raises RequestError for the first URI that names no object."""
    wrong = found.filter(pc.invert(pc.fill_null(pc.match_substring_regex(found, _URI), False)))
    if len(wrong):
        raise RequestError(
            f"column image_uri of {place}: expected s3://bucket/key, gs://, az:// or file:///path, "
            f"got {wrong[0].as_py()!r}"
        )
