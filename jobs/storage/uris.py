"""URIs of objects and files: ``s3://bucket/key``, ``gs://``, ``az://``, ``file:///path``.

Keys stand in them as stored, never percent-encoded. Names of files that are not UTF-8 keep each odd byte as one
private character, because tables hold UTF-8 alone; see `escape_name`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from jobs.errors import RequestError

SCHEMES = ("s3", "gs", "az", "file")
_SCHEME = re.compile(r"^(s3[an]?|gs|az|file)(?=:/)", re.IGNORECASE)
_PRIVATE = 0xF700
"""The code point that stands for byte 0; bytes from 128 on are used, as U+F780 to U+F7FF."""
_TAKEN = re.compile("[\uf780-\uf7ff]")


def normalize(uri: str) -> str:
    """Returns ``uri`` with a scheme and without a trailing slash; plain paths become absolute ``file://`` URIs.

    Of files, ``~``, ``.``, ``..``, doubled slashes and the host ``localhost`` are resolved, so that one file has one
    URI. Keys of buckets stay as they are, for there ``..`` is a name. Schemes are told in any letters, and Hadoop's
    ``s3a`` is ``s3``.

    Raises:
        RequestError: a scheme other than s3, gs, az, file, or a bucket name that is missing.
    """
    if "\0" in uri:
        raise RequestError(f"expected a URI or path without a zero byte, got {uri!r}")
    uri = _SCHEME.sub(lambda found: re.sub("^s3[an]$", "s3", found[0].lower()), uri)
    if uri.startswith("file:/") and not uri.startswith("file://"):  # as Java programs write it
        uri = "file://" + uri.removeprefix("file:")
    if one_slash := re.match(r"(s3|gs|az):/?(?!/)", uri):
        raise RequestError(f"expected two slashes, such as {one_slash[1]}://bucket/folder, got {uri!r}")
    if "://" not in uri:
        return "file://" + escape_name(resolve_path(uri))
    scheme, rest = uri.split("://", 1)
    if scheme not in SCHEMES:
        raise RequestError(f"expected a URI with s3://, gs://, az:// or file://, or a plain path, got {uri!r}")
    if not rest.strip("/"):
        raise RequestError(f"expected a bucket or path after {scheme}://, got {uri!r}")
    if scheme == "file":
        path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        if not path.startswith(("/", "~")):
            raise RequestError(f"expected an absolute path after file://, such as file:///{rest}, got {uri!r}")
        return "file://" + escape_name(resolve_path(os.fsdecode(restore_name(path))))
    if rest.startswith("/"):
        raise RequestError(f"expected a bucket after {scheme}://, got {uri!r}")
    return uri.rstrip("/")


def resolve_path(path: str) -> str:
    """Returns an absolute path without ``~``, ``.``, ``..`` and doubled slashes; the root itself is empty.

    Links stay in it as they are named, so that an archive behind one keeps its URIs. Only ``..`` behind a link leads
    where the link leads, as it does for the operating system.

    Raises:
        RequestError: a user after ``~`` that does not exist.
    """
    try:
        absolute = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise RequestError(f"{error}: got {path!r}") from error
    resolved = "/"
    for part in absolute.parts[1:]:
        if part == "..":
            resolved = str(Path(os.path.realpath(resolved) if Path(resolved).is_symlink() else resolved).parent)
        else:
            resolved = str(Path(resolved) / part)
    return resolved.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Appends path parts to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def split(uri: str) -> tuple[str, str, str]:
    """Splits a URI into scheme, bucket (empty for files) and key."""
    scheme, rest = uri.split("://", 1)
    if scheme == "file":
        return scheme, "", rest.removeprefix("/")
    bucket, _, key = rest.partition("/")
    return scheme, bucket, key


def escape_name(name: str) -> str:
    """Returns the name of a file, as the operating system gives it to Python, as text that UTF-8 can hold.

    Each byte that is not UTF-8 becomes one character of U+F780 to U+F7FF. Where a name has such characters of its own
    their bytes are written the same way, so that `restore_name` finds every file again.
    """
    name = _TAKEN.sub(lambda found: "".join(chr(_PRIVATE + byte) for byte in found[0].encode()), name)
    return "".join(chr(ord(char) - 0xDC00 + _PRIVATE) if "\udc80" <= char <= "\udcff" else char for char in name)


def restore_name(name: str) -> bytes:
    """Returns the bytes of a file's name or path, from the text of `escape_name`."""
    return os.fsencode(_TAKEN.sub(lambda found: chr(ord(found[0]) - _PRIVATE + 0xDC00), name))
