"""What deltalake raises, told in one line of ours each."""

from __future__ import annotations

import errno
import re

from jobs import storage
from jobs.errors import JobError, MissingObjectError, RequestError, StorageError, one_line

_FULL = re.compile(r"No space left|os error (28|122)\b|StorageFull|Disk quota exceeded|QuotaExceeded")
_NEWER = re.compile(r"(reader|writer) version|minReaderVersion|unsupported.*(feature|protocol)", re.IGNORECASE)
_DAMAGED = re.compile(
    r"found gap|contiguous|Json error|invalid json|expected (value|ident|`|,)|EOF while parsing|"
    r"trailing characters|No (protocol|table metadata|metadata)|Missing ?(metadata|protocol)|Invalid table version|"
    r"File not found: \S*_delta_log|serializing|deserializ",
    re.IGNORECASE,
)
_GONE = re.compile(r"not found|NotFound|No such file|NoSuchKey|404", re.IGNORECASE)


def explain_delta_error(error: Exception, uri: str, *, needs: storage.Access = "read") -> JobError:
    """Translates an exception of deltalake, or of the storage below it, at the table ``uri``."""
    said = one_line(error)
    if is_full(error):
        return JobError(f"no room is left at {uri}, so nothing was committed: make room, the same command continues")
    if type(error).__name__ == "DeltaProtocolError" or _NEWER.search(said):
        return RequestError(f"{uri} needs a newer Delta protocol than this program knows, update it: {said[:200]}")
    if _DAMAGED.search(said):
        return StorageError(
            f"the log of {uri} is damaged, restore _delta_log from a backup, the Parquet files are intact: {said[:200]}"
        )
    translated = error if isinstance(error, StorageError) else storage.translate_error(error, uri, needs=needs)
    if isinstance(translated, MissingObjectError) or _GONE.search(said):
        return MissingObjectError(
            f"a file of {uri} is missing, restore it, or take it out of the table with `python -m jobs.table repair`: "
            f"{said[:200]}"
        )
    return translated


def is_full(error: Exception) -> bool:
    """Tells whether an error says that a disk, or a quota, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))
