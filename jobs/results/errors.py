"""What deltalake raises, told in one line of ours each."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from jobs import storage
from jobs.errors import (
    DamagedFileError,
    DeniedError,
    JobError,
    MissingObjectError,
    RequestError,
    StorageError,
    one_line,
)

_FULL = re.compile(r"No space left|os error (28|122)\b|StorageFull|Disk quota exceeded|QuotaExceeded")
_DENIED = re.compile(r"os error (1|13|30)\b|Permission denied|Operation not permitted|Read-only file system")
_NEWER = re.compile(r"(reader|writer) version|minReaderVersion|unsupported.*(feature|protocol)", re.IGNORECASE)
_DAMAGED = re.compile(
    r"found gap|contiguous|Json error|invalid json|expected (value|ident|`|,)|EOF while parsing|"
    r"trailing characters|No (protocol|table metadata|metadata)|Missing ?(metadata|protocol)|Invalid table version|"
    r"File not found: \S*_delta_log|serializing|deserializ",
    re.IGNORECASE,
)
_NO_FOLDER = re.compile(r"Invalid table location|Not a directory")
_NOISE = re.compile(
    r"^(Kernel error: |Generic delta kernel error: )+| \d+: <unknown>.*$|: ParsedLogPath .*$|\x1b\[\d*m"
)
"""What deltalake says and nobody needs: a backtrace without names, its own structures, colours."""
_NO_PARQUET = re.compile(r"magic bytes|parse parquet|fill whole buffer|footer|decompress|thrift", re.IGNORECASE)
_GONE = re.compile(r"(?<!bytes )not found|NotFound|No such file|NoSuchKey|404", re.IGNORECASE)
_CARED_FOR = "/scores"
"""How the URI of the table ends that `jobs.table repair` cares for."""
_TAKE_OUT = "take it out of the table with `python -m jobs.table repair`, and the next run scores its photos anew"


def explain_delta_error(error: Exception, uri: str, *, needs: storage.Access = "read") -> JobError:
    """Translates an exception of deltalake, or of the storage below it, at the table ``uri``."""
    said = _NOISE.sub("", one_line(error))
    if _NO_FOLDER.search(said):
        return RequestError(f"{uri} is no folder, a table needs one: correct --results, or move what lies there away")
    if is_full(error):
        return JobError(f"no room is left at {uri}, so nothing was committed: make room, the same command continues")
    if _DENIED.search(said):
        return DeniedError(
            f"access to {uri} was denied: this user lacks the permission to read or write a file of it: {said[:300]}"
        )
    if type(error).__name__ == "DeltaProtocolError" or _NEWER.search(said):
        return RequestError(f"{uri} needs a newer Delta protocol than this program knows, update it: {said[:200]}")
    if _DAMAGED.search(said):
        return make_log_error(uri, said[:200])
    translated = error if isinstance(error, StorageError) else storage.translate_error(error, uri, needs=needs)
    is_cared_for = uri.endswith(_CARED_FOR)
    if isinstance(translated, MissingObjectError) or _GONE.search(said):
        mend = f"restore it, or {_TAKE_OUT}" if is_cared_for else "restore it from a backup"
        return MissingObjectError(f"a file of {uri} is missing: {mend}: {said[:200]}")
    if type(translated) is StorageError and _NO_PARQUET.search(said):  # not where the storage's own reason is known
        mend = f"restore it, or delete it and {_TAKE_OUT}" if is_cared_for else "restore it from a backup"
        return DamagedFileError(f"a file of {uri} is damaged, it is no whole Parquet file: {mend}: {said[:200]}")
    return translated


def make_log_error(uri: str, said: str) -> StorageError:
    """Makes the error of a table whose log is damaged, with what was found there."""
    return StorageError(
        f"the log of {uri} is damaged, restore _delta_log from a backup, the Parquet files are intact: {said}"
    )


def is_full(error: Exception) -> bool:
    """Tells whether an error says that a disk, or a quota, is full."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or bool(_FULL.search(str(error)))


@contextmanager
def explain_lost_files() -> Iterator[None]:
    """Says what to do about a file of the table that is lost or damaged."""
    try:
        yield
    except MissingObjectError as error:
        raise MissingObjectError(f"{error}: restore it, or {_TAKE_OUT}") from error
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; restore it, or delete it and {_TAKE_OUT}") from error
