"""The column ``group`` of a list of photos: which of them belong together."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import csv

from jobs import storage
from jobs.archive.kinds import find_list_files
from jobs.archive.uri_list import OLDER_NAMES, normalize_listed
from jobs.errors import RequestError
from jobs.tables import parquet as tables

GROUP = "group"


def read_groups(archive: str) -> dict[str, str]:
    """Reads URI -> group of a list; photos whose group is empty are left out.

    Args:
        archive: URI of a ``.csv``, ``.csv.gz`` or ``.parquet`` list, or of a folder of them.

    Raises:
        RequestError: it has no column ``group``.
        StorageError: it is missing or cannot be reached.
    """
    found: dict[str, str] = {}
    for file in find_list_files(archive):
        for batch in _read_parquet(file) if file.lower().endswith(".parquet") else _read_csv(file):
            rows = zip(*(column.cast(pa.string()).to_pylist() for column in batch.columns), strict=True)
            found |= {str(normalize_listed(uri)): group for uri, group in rows if uri and group}
    return found


def _select_columns(names: list[str], file: str) -> list[str]:
    uri = next((name for name in ("image_uri", OLDER_NAMES["image_uri"]) if name in names), None)
    if uri is None or GROUP not in names:
        raise RequestError(
            f"--group-by {GROUP} needs the columns image_uri and {GROUP} of the list {file}: got "
            f"{', '.join(names) or 'nothing'}"
        )
    return [uri, GROUP]


def _read_parquet(file: str) -> Iterator[pa.RecordBatch]:
    have = tables.read_schema(file)
    columns = _select_columns(have.names, file)
    yield from (batch.select(columns) for batch in tables.scan_parquet([file], columns=columns, schema=have))


def _read_csv(file: str) -> Iterator[pa.RecordBatch]:
    try:
        with storage.open_stream(file) as stream:
            columns = _select_columns(csv.open_csv(stream).schema.names, file)
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=columns,
            strings_can_be_null=True,
            null_values=[""],
        )
        with storage.open_stream(file) as stream:
            yield from csv.open_csv(stream, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise RequestError(f"the list {file} is no CSV: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise storage.translate_error(error, file) from error
