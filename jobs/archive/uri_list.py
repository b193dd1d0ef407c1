"""A CSV or Parquet list of URIs as an archive: column ``uri``, and whatever else of LISTED it knows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.archive.keys import as_time, keys_of, named_by_key
from jobs.errors import RequestError
from jobs.tables import parquet as tables
from jobs.tables.schema import LISTED

_URI = r"^((s3|gs|az)://[^/]+/.|file:///.)"
_TIMES = ("last_modified", "captured_at")


def read_list(archive: str, *, pattern: re.Pattern[str]) -> Iterator[pa.RecordBatch]:
    """Streams a list as LISTED batches; columns that it does not have are null, those that LISTED lacks are ignored.

    Args:
        archive: URI of the list, ``.csv`` (with a line of names), ``.csv.gz`` or ``.parquet``.
        pattern: matched at the beginning of each key for the category, site and captured_at that the list leaves open.

    Raises:
        RequestError: it has no column uri, or a value that cannot be what its column says.
        StorageError: it is missing or cannot be reached.
    """
    rows = 0
    for batch in _read_parquet(archive) if archive.endswith(".parquet") else _read_csv(archive):
        if len(batch):
            yield _listed(batch, pattern, place=f"{archive}, rows from {rows + 1}")
        rows += len(batch)


def _known(names: list[str], archive: str) -> list[str]:
    if "uri" not in names:
        raise RequestError(f"the list {archive} has no column uri: got {', '.join(names) or 'nothing'}")
    return [name for name in LISTED.names if name in names]


def _read_parquet(archive: str) -> Iterator[pa.RecordBatch]:
    have = tables.columns_of(archive)
    yield from tables.scan([archive], columns=_known(have.names, archive), schema=have)


def _read_csv(archive: str) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    try:
        with storage.open_stream(archive) as stream:
            names = csv.open_csv(stream).schema.names
        known = _known(names, archive)
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
        raise storage.as_storage_error(error, archive) from error


def _listed(batch: pa.RecordBatch, pattern: re.Pattern[str], *, place: str) -> pa.RecordBatch:
    have = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns = {
        field.name: _column(have[field.name], field, place=place)
        if field.name in have
        else pa.nulls(len(batch), field.type)
        for field in LISTED
    }
    _check_uris(columns["uri"], place=place)
    if columns["category"].null_count:
        named = named_by_key(keys_of(columns["uri"].to_pylist()), pattern)
        for name, values in named.items():
            columns[name] = pc.coalesce(columns[name], pa.array(values, LISTED.field(name).type))
    return pa.record_batch(columns, schema=LISTED)


def _column(column: pa.Array, field: pa.Field, *, place: str) -> pa.Array:
    try:
        if field.name in _TIMES and pa.types.is_string(column.type):
            return pa.array([as_time(text) for text in column.to_pylist()], field.type)
        found = column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise RequestError(f"column {field.name} of {place}: {str(error).splitlines()[0]}") from error
    # As in a listing: entity tags without quotes, and nothing said is nothing known.
    found = pc.utf8_trim(found, '"') if field.name == "etag" else found
    return pc.if_else(pc.equal(found, ""), None, found) if pa.types.is_string(field.type) else found


def _check_uris(found: pa.Array, *, place: str) -> None:
    wrong = found.filter(pc.invert(pc.fill_null(pc.match_substring_regex(found, _URI), False)))
    if len(wrong):
        raise RequestError(
            f"column uri of {place}: expected s3://bucket/key, gs://, az:// or file:///path, got {wrong[0].as_py()!r}"
        )
