"""Photos that a person has left out: a list of them, and a manifest without them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import storage
from jobs.archive.csv_columns import find_delimiter, name_columns
from jobs.archive.selection import Selection
from jobs.config import is_place, split_at_commas
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris

NAME_COLUMNS = ("image_uri", "uri", "key", "image")
"""Columns of a list that may name the photos, the first of them that it has."""


def exclude_photos(manifest: pa.Table, names: Sequence[str], *, data: str) -> pa.Table:
    """Returns the MANIFEST rows that no name names.

    Args:
        manifest: rows with ``image_uri``.
        names: URIs, keys below ``data``, or paths of this machine.
        data: folder of the data set.
    """
    folder = data.rstrip("/") + "/"
    known = set(names) | {folder + name.lstrip("/") for name in names}
    known |= {uris.normalize(name) for name in names if name.startswith(("/", "~", "file:"))}
    return manifest.filter(pc.invert(pc.is_in(manifest["image_uri"], pa.array(sorted(known), pa.string()))))


def make_selection(include: Sequence[str], exclude: str | None) -> Selection:
    """Makes the selection of a request that includes patterns, and excludes patterns or the photos of a list.

    The photos of a list are left out by `exclude_photos`, once they are listed.
    """
    patterns = [] if exclude is None or is_place(exclude) else split_at_commas(exclude)
    return Selection(include, patterns)


def read_names(place: str) -> list[str]:
    """Reads a list of photos: .csv or .parquet with a column of `NAME_COLUMNS`, or a name a line.

    A CSV without such a column has them in its first one.

    Raises:
        RequestError: there is no such list, it cannot be read, or it names nothing.
    """
    try:
        content = storage.read(place)
        names = read_parquet_names(content) if place.lower().endswith(".parquet") else read_text_names(content, place)
    except MissingObjectError as error:
        raise RequestError(f"--exclude {place}: {error}") from error
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise RequestError(
            f"--exclude {place} holds no names: expected .csv or .parquet with a column {' or '.join(NAME_COLUMNS)}, "
            f"or .txt with a URI or key a line ({str(error).splitlines()[0]})"
        ) from error
    if not names:
        raise RequestError(f"--exclude {place} names no photo: expected a URI or key a line")
    return names


def read_parquet_names(content: bytes) -> list[str]:
    """Reads the first of `NAME_COLUMNS` that a Parquet file has. Raises KeyError where it has none."""
    table = pq.read_table(io.BytesIO(content))
    column = next((name for name in NAME_COLUMNS if name in table.column_names), None)
    if column is None:
        raise KeyError(f"its columns are {', '.join(table.column_names)}")
    return [str(name) for name in table[column].to_pylist() if name]


def read_text_names(content: bytes, place: str) -> list[str]:
    """Reads the names of a CSV, or of a text with one a line."""
    text = content.decode("utf-8-sig")
    if not place.lower().endswith(".csv"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    first = text.lstrip().split("\n", 1)[0]
    delimiter = find_delimiter(first)
    header = name_columns(next(csv.reader([first], delimiter=delimiter), []))
    column = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
    # Without a line of names, keys may hold whatever parts other lists.
    rows = [row for row in csv.reader(io.StringIO(text), delimiter="," if column is None else delimiter) if row]
    return [row[column or 0] for row in rows[0 if column is None else 1 :] if len(row) > (column or 0)]
