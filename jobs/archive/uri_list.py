"""A CSV, Parquet or text list of URIs as an archive: ``image_uri``, and whatever else of LISTED it knows.

The part of a photo that a row is about stands in the columns x, y, width and height, or in one column ``box``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from jobs import storage
from jobs.archive.absence import refuse_missing_input
from jobs.archive.csv_columns import (
    CsvError,
    explain_damage,
    find_delimiter,
    find_once,
    name_columns,
    read_csv,
    read_first_line,
)
from jobs.archive.keys import FIRST_TIME, LAST_TIME, LostTimes, parse_keys, parse_time
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.tables import parquet as tables
from jobs.tables.boxes import format_box, format_value
from jobs.tables.schema import LISTED
from jobs.tables.text import make_printable

PHOTO_URI = r"^((s3|gs|az)://[^/]+/.|file:///.)"
"""What the URI of an object begins with."""
OLDER_NAMES = {"image_uri": "uri", "image_etag": "etag", "image_bytes": "size_bytes"}
"""What lists may call the columns too, as they did before all tables had one name for each."""
_TIMES = ("last_modified", "captured_at", "at")
BOX_COLUMNS = ("x", "y", "width", "height")
"""Of a box, in pixels of the photo as stored; a list that lacks one of them speaks of whole photos."""
_LIKE_A_BOX = re.compile(r"[xy](_?(min|max|\d))?|b(ounding)?_?box(es)?|boxes")
"""What others call the columns of a box; which corner or unit they mean nobody knows."""


def read_list(archive: str, *, pattern: re.Pattern[str]) -> Iterator[pa.RecordBatch]:
    """Streams a list as LISTED batches; columns that it does not have are null, those that LISTED lacks are ignored.

    Args:
        archive: URI of the list: ``.csv`` (with a line of names), ``.parquet`` or ``.txt`` (a URI or absolute path
            on each line); ``.csv`` and ``.txt`` may be packed as ``.gz``.
        pattern: matched at the beginning of each key for the category, site and captured_at that the list leaves open.

    Raises:
        RequestError: it is not there, has no column image_uri, or a value that cannot be what its column says.
        StorageError: it cannot be reached.
    """
    rows, blank, lost = 0, 0, LostTimes(archive)
    for batch in read_columns(archive, select_filled):
        filled = drop_blank_rows(batch)
        if len(filled):
            listed = to_listed(filled, pattern, place=f"{archive}, rows from {rows + 1}")
            for name in set(_TIMES).intersection(batch.schema.names):
                lost.count(name, filled.column(name), listed.column(name))
            yield listed
        rows, blank = rows + len(batch), blank + len(batch) - len(filled)
    lost.report()
    if blank:
        say_of_list(archive, f"left out {blank} rows without an image_uri and all else")


def drop_blank_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Drops the rows that say nothing, as spreadsheets write them below a table."""
    is_filled = pa.array(np.zeros(len(batch), bool))
    for column in batch.columns:
        says = pc.not_equal(column.cast(pa.string()), "") if is_text(column.type) else pc.is_valid(column)
        is_filled = pc.or_(is_filled, pc.fill_null(says, False))
    return batch.filter(is_filled)


def say_of_list(file: str, said: str) -> None:
    """Says on stderr what a person who wrote a list should know of it."""
    print(f"{make_printable(file)}: {said}", file=sys.stderr, flush=True)


def warn_of_boxes(names: Sequence[str], file: str) -> None:
    """Says of a list with columns that look like a box, and are not read as one, that its rows are whole photos."""
    alike = [name for name in names if _LIKE_A_BOX.fullmatch(name)]
    if alike and "box" not in names and not set(BOX_COLUMNS) <= set(names):
        say_of_list(
            file,
            f"no boxes are read from {make_printable(', '.join(alike))}, its rows are whole photos: boxes are the "
            "columns x, y, width and height, all four, or one column box of these",
        )


def select_known(names: list[str], archive: str) -> list[str]:
    """Returns those columns of a list that LISTED has too, as the list names them.

    Raises:
        RequestError: none of them names the photos.
    """
    known = [name if name in names else OLDER_NAMES.get(name, name) for name in LISTED.names]
    if known[0] not in names:
        raise RequestError(f"the list {archive} has no column image_uri: got {', '.join(names) or 'nothing'}")
    known = [name for name in known if name in names]
    return known if "box" in known or not set(BOX_COLUMNS) <= set(names) else [*known, *BOX_COLUMNS]


def select_filled(names: list[str], archive: str) -> list[str]:
    """Returns what `select_known` does, without a column ``box`` that is empty in all of the list.

    So says a table of whole photos that has the column; in others a row without a box is one that was forgotten.
    """
    known = select_known(names, archive)
    warn_of_boxes(names, archive)
    if "box" not in known:
        return known
    is_filled = any(batch.column(0).null_count < len(batch) for batch in read_columns(archive, lambda *_: ["box"]))
    return known if is_filled else [name for name in known if name != "box"]


def read_columns(file: str, select: Callable[[list[str], str], list[str]]) -> Iterator[pa.RecordBatch]:
    """Streams the columns of a list that ``select`` makes of their names: Parquet, text or CSV by its name.

    Raises:
        RequestError: it is not there, or no such list.
        StorageError: it cannot be reached.
    """
    name = file.lower().removesuffix(".gz")
    read = read_parquet_columns if name.endswith(".parquet") else read_text if name.endswith(".txt") else read_csv
    with refuse_missing_input(), refuse_csv(file, "cannot be read" if read is read_parquet_columns else "is no CSV"):
        yield from read(file, select)


@contextmanager
def refuse_csv(file: str, said: str = "is no CSV") -> Iterator[None]:
    """Makes what is wrong with a list a fault of the request that names it."""
    try:
        yield
    except CsvError as error:
        raise RequestError(f"the list {file} {said}: {error}") from error


def read_parquet_columns(file: str, select: Callable[[list[str], str], list[str]]) -> Iterator[pa.RecordBatch]:
    """Streams the columns of a Parquet list that ``select`` makes of all their names and the list's, in its order.

    Raises:
        CsvError: it has one of them twice.
        StorageError: it cannot be reached.
    """
    have = tables.read_schema(file)
    names = name_columns(have.names)
    columns = select(names, file)
    wanted = [have.names[find_once(names, name)] for name in columns]
    for batch in tables.scan_parquet([file], columns=wanted, schema=have):
        yield pa.RecordBatch.from_arrays([batch.column(name) for name in wanted], names=columns)


def read_text(file: str, select: Callable[[list[str], str], list[str]]) -> Iterator[pa.RecordBatch]:
    """Reads a URI a line, or a CSV that is only called text.

    Raises:
        CsvError: it is no text.
        StorageError: it cannot be read.
    """
    first = read_first_line(file)
    names = {name.strip('" ').lower() for name in first.split(find_delimiter(first))}
    if {"image_uri", "uri"} & names:
        yield from read_csv(file, select)
        return
    columns = select(["image_uri"], file)
    try:
        with storage.open_stream(file) as stream:
            for batch in csv.open_csv(
                stream,
                read_options=csv.ReadOptions(column_names=columns),
                parse_options=csv.ParseOptions(delimiter="\x1f", quote_char=False),  # keys may have commas and quotes
                convert_options=csv.ConvertOptions(column_types={"image_uri": pa.string()}),
            ):
                lines = pc.utf8_ltrim_whitespace(batch.column(0))  # blanks after a URI may be part of its key
                yield pa.record_batch({"image_uri": lines.filter(pc.not_equal(lines, ""))})
    except pa.ArrowInvalid as error:
        raise CsvError(explain_damage(error)) from error
    except OSError as error:
        raise storage.translate_error(error, file) from error


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
    if set(BOX_COLUMNS) <= set(have):
        columns["box"] = format_boxes([have[name] for name in BOX_COLUMNS])
    columns["image_uri"] = pa.array([normalize_listed(uri) for uri in columns["image_uri"].to_pylist()], pa.string())
    check_uris(columns["image_uri"], place=place)
    if columns["category"].null_count:
        named = parse_keys([uris.split(uri)[2] for uri in columns["image_uri"].to_pylist()], pattern)
        for name, values in named.items():
            columns[name] = pc.coalesce(columns[name], pa.array(values, LISTED.field(name).type))
    return pa.record_batch(columns, schema=LISTED)


def to_column(column: pa.Array, field: pa.Field, *, place: str) -> pa.Array:
    """Converts one column of a list to the type that LISTED gives it.

    Raises:
        RequestError: it cannot be converted.
    """
    try:
        if is_text(column.type):
            column = column.cast(pa.string())
        if field.name == "box":
            return pa.array([format_value(value) for value in column.to_pylist()], pa.string())
        if field.name in _TIMES:
            return to_times(column, field.type)
        found = to_sizes(column) if field.name == "image_bytes" else column.cast(field.type)
    except pa.ArrowException as error:  # also of columns of lists or records, which no cast takes
        raise RequestError(f"column {field.name} of {place}: {str(error).splitlines()[0]}") from error
    # As in a listing: entity tags without quotes, and nothing said is nothing known.
    found = pc.utf8_trim(found, '"') if field.name == "image_etag" else found
    return pc.if_else(pc.equal(found, ""), None, found) if pa.types.is_string(field.type) else found


def format_boxes(columns: Sequence[pa.Array]) -> pa.Array:
    """Formats the columns of x, y, width and height, of whatever type, as the column ``box``."""
    numbers = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([format_box(box) for box in numbers], pa.string())


def is_text(kind: pa.DataType) -> bool:
    """Tells whether a column holds text, in any of Arrow's ways."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def to_times(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Converts ISO 8601 text, dates and timestamps of any unit; finer ones lose what is below a microsecond.

    A time that Python cannot hold is none.

    Raises:
        pa.ArrowInvalid: the column holds no times, such as plain numbers, whose unit nobody knows.
    """
    if pa.types.is_string(column.type):
        return pa.array([parse_time(text) for text in column.to_pylist()], kind)
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type) or pa.types.is_null(column.type)):
        raise pa.ArrowInvalid(f"expected timestamps or ISO 8601 text, got {column.type}")
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    times = column.cast(kind, safe=False)
    return pc.if_else(pc.and_(pc.greater_equal(times, FIRST_TIME), pc.less_equal(times, LAST_TIME)), times, None)


def to_sizes(column: pa.Array) -> pa.Array:
    """Converts sizes that are text, or numbers with a point, as pandas writes whole numbers beside missing ones.

    Raises:
        pa.ArrowInvalid: one is no whole number, or less than 0.
    """
    if pa.types.is_string(column.type):
        trimmed = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"\.0*$", "")
        column = pc.if_else(pc.match_substring_regex(trimmed, "(?i)^(|nan|null|none)$"), None, trimmed)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    sizes = column.cast(pa.int64())
    if (least := pc.min(sizes).as_py()) is not None and least < 0:
        raise pa.ArrowInvalid(f"expected sizes in bytes, got {least}")
    return sizes


def normalize_listed(uri: str | None) -> str | None:
    """Returns a listed URI as a listing would name the object: absolute paths as ``file://``, ``s3a://`` as ``s3://``."""
    if uri is None or uri.startswith(("s3://", "gs://", "az://")):
        return uri
    if uri.startswith(("/", "~")) or uri[:5].lower() == "file:":
        with suppress(RequestError):
            return uris.normalize(uri)
    return re.sub(r"^(s3|gs|az)[an]?://", lambda found: f"{found[1].lower()}://", uri, flags=re.IGNORECASE)


def check_uris(found: pa.Array, *, place: str) -> None:
    """Raises RequestError for the first URI that names no object."""
    wrong = found.filter(pc.invert(pc.fill_null(pc.match_substring_regex(found, PHOTO_URI), False)))
    if len(wrong):
        raise RequestError(
            f"column image_uri of {place}: expected s3://bucket/key, gs://, az://, file:///path or an absolute path, "
            f"got {wrong[0].as_py()!r}"
        )
