"""URIs of objects and files: ``s3://bucket/key``, ``gs://``, ``az://``, ``file:///path``.

Keys stand in them as stored, never percent-encoded.
"""

from __future__ import annotations

from pathlib import Path

from jobs.errors import RequestError


def normalize(uri: str) -> str:
    """Returns ``uri`` with a scheme and without a trailing slash; plain paths become absolute ``file://`` URIs.

    Raises:
        RequestError: a scheme other than s3, gs, az, file, or a bucket name that is missing.
    """
    if "://" not in uri:
        return "file://" + str(Path(uri).absolute()).rstrip("/")
    scheme, rest = uri.split("://", 1)
    if scheme not in ("s3", "gs", "az", "file"):
        raise RequestError(f"expected a URI with s3://, gs://, az:// or file://, or a plain path, got {uri!r}")
    if not rest.strip("/"):
        raise RequestError(f"expected a bucket or path after {scheme}://, got {uri!r}")
    return uri.rstrip("/")


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
