"""Columns of CSV files as text, in all the ways that spreadsheets and databases write them; of lists and inventories.

A spreadsheet in German or French writes semicolons; others write tabs, names in capitals, or a blank after each comma.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from jobs import storage

DELIMITERS = ",;\t|"
_FIRST_BYTES = 4096
"""Enough for a file's line of names."""
_FOREIGN = (
    (re.compile(rb"PAR1"), "a Parquet file: name it .parquet"),
    (re.compile(rb"\x1f\x8b"), "packed by gzip: name it .gz"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive or a spreadsheet: unpack it, or save it as CSV"),
    (re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]"), "text in UTF-16: save it as UTF-8"),
)
_NOT_UNPACKED = re.compile("zlib inflate failed|Truncated compressed stream")


class CsvError(Exception):
    """A file is no CSV, and why."""


def read_csv(
    file: str, select: Callable[[list[str], str], list[str]], *, names: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Streams columns of a CSV file as text; what is empty is null.

    Args:
        file: its URI; what ends in .gz is unpacked.
        select: makes the names of the columns wanted of all of them, as `name_columns` gives them.
        names: of the columns, of a file without a line of names; its cells are taken as they are.

    Raises:
        CsvError: it is no CSV, or has a column twice.
        StorageError: it cannot be read.
    """
    try:
        first = read_first_line(file)
        parse = csv.ParseOptions(delimiter="," if names else find_delimiter(first), newlines_in_values=True)
        read = csv.ReadOptions(column_names=names)
        stored = list(names) if names else read_stored_names(file, parse)
        have = stored if names else name_columns(stored)
        columns = select(have, file)
        wanted = [stored[find_once(have, name)] for name in columns]
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=wanted,
            strings_can_be_null=True,
            null_values=[""],
        )
        with storage.open_stream(file) as stream:
            for batch in csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert):
                cells = batch.columns if names else map(trim_cells, columns, batch.columns)
                yield pa.RecordBatch.from_arrays(list(cells), names=columns)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise CsvError(explain_damage(error)) from error
    except OSError as error:
        if _NOT_UNPACKED.search(str(error)):
            raise CsvError(f"it cannot be unpacked: {error}") from error
        raise storage.translate_error(error, file) from error


def read_stored_names(file: str, parse: csv.ParseOptions) -> list[str]:
    """Reads the names of a CSV file's columns as they are written. Raises what pyarrow and the storage raise."""
    with storage.open_stream(file) as stream:
        names: list[str] = csv.open_csv(stream, parse_options=parse).schema.names
    return names


def read_first_line(file: str) -> str:
    """Reads the first line of a text that is not blank.

    Raises:
        CsvError: the file is no text in UTF-8, as its first bytes tell.
        OSError, StorageError: it cannot be read.
    """
    with storage.open_stream(file) as stream:
        head = bytes(stream.read(_FIRST_BYTES))
    if kind := next((kind for signature, kind in _FOREIGN if signature.match(head)), None):
        raise CsvError(f"it is {kind}")
    lines = head.decode(errors="replace").removeprefix("\ufeff").splitlines()
    return next((line for line in lines if line.strip()), "")


def find_delimiter(first_line: str) -> str:
    """Finds what stands between the names of a line: what parts it into most of them."""
    return max(DELIMITERS, key=first_line.count)


def name_columns(names: Sequence[str]) -> list[str]:
    """Returns the names of a list's columns without blanks and capitals, unless two of them would be the same then."""
    plain = [name.strip().lower() for name in names]
    return [name if plain.count(low) > 1 else low for name, low in zip(names, plain, strict=True)]


def find_once(names: Sequence[str], name: str) -> int:
    """Returns the place of a column. Raises CsvError where there are several, of which nobody knows the right one."""
    if names.count(name) > 1:
        raise CsvError(f"it has the column {name} {names.count(name)} times")
    return names.index(name)


def trim_cells(name: str, cells: pa.Array) -> pa.Array:
    """Trims the blanks around cells; those after a URI may be part of its key."""
    return pc.utf8_ltrim_whitespace(cells) if name.endswith("uri") else pc.utf8_trim_whitespace(cells)


def explain_damage(error: Exception) -> str:
    """Returns the first line of what pyarrow says of a text that it cannot read, and what to do where that is known."""
    said = str(error).splitlines()[0]
    if "straddling" in said:
        return "it has a row of more than 1 MB, as after a quotation mark that nothing closes"
    return f"{said}: save it as UTF-8" if "invalid UTF8" in said else said
