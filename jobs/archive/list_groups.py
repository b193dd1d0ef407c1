"""The column ``group`` of a list of photos: which of them belong together."""

from __future__ import annotations

import pyarrow as pa

from jobs.archive.kinds import find_list_files
from jobs.archive.uri_list import OLDER_NAMES, normalize_listed, read_columns
from jobs.errors import RequestError

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
        for batch in read_columns(file, _select_columns):
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
