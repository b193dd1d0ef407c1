"""Photos that a person has left out: a list of them, and a manifest without them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.csv_columns import read_csv, read_first_line
from jobs.archive.selection import Selection
from jobs.archive.uri_list import read_columns, refuse_csv
from jobs.config import is_place, split_at_commas
from jobs.errors import RefusedError, RequestError, one_line
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
    """Reads a list of photos as other lists are read: a column of `NAME_COLUMNS`, or a name a line.

    A CSV without such a column, and without a line of names, has them in its first one.

    Raises:
        RequestError: there is no such list, it cannot be read, or it names nothing.
    """
    try:
        names = [name for batch in stream_names(place) for name in batch.column(0).cast(pa.string()).to_pylist()]
    except (RequestError, RefusedError, pa.ArrowException) as error:
        raise RequestError(
            f"--exclude {place} holds no names: expected .csv, .parquet or .txt with a column "
            f"{' or '.join(NAME_COLUMNS)}, or a URI or key a line ({one_line(error)})"
        ) from error
    names = [name.strip() for name in names if name and name.strip()]
    if not names:
        raise RequestError(f"--exclude {place} names no photo: expected a URI or key a line")
    return names


def stream_names(place: str) -> Iterator[pa.RecordBatch]:
    """Streams the one column of a list that names the photos; see `read_names` for errors."""
    bare: list[str] = []

    def select(names: list[str], _: str) -> list[str]:
        found = next((name for name in NAME_COLUMNS if name in names), None)
        if found is None:
            bare.extend(names)
            raise RequestError(f"its columns are {', '.join(names)}")
        return [found]

    try:
        yield from read_columns(place, select)
    except RequestError:
        if not bare or place.lower().endswith(".parquet"):
            raise
        # Without a line of names, keys may hold whatever parts other lists: commas alone part these.
        columns = next(csv.reader([read_first_line(place)]))
        numbered = [str(number) for number in range(len(columns))]
        with refuse_csv(place):
            yield from read_csv(place, lambda *_: numbered[:1], names=numbered)
