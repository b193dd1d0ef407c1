"""The same storage as pyarrow sees it: for Ray Data and Ray Train, which write through it, and to read as a stream."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jobs.storage.clients import MAX_S3_ATTEMPTS, find_s3_endpoint, open_s3_session
from jobs.storage.errors import CLIENT_ERRORS, translate_error
from jobs.storage.uris import split

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs


def make_worker_environment() -> dict[str, str]:
    """Returns the environment variables that a process needs to write through pyarrow.

    S3-compatible stores behind AWS_ENDPOINT_URL may refuse the checksum trailers that the AWS SDK sends by default
    (Ceph before Squid: 411 MissingContentLength).
    """
    if not find_s3_endpoint():
        return {}
    return {
        "AWS_REQUEST_CHECKSUM_CALCULATION": os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
        "AWS_RESPONSE_CHECKSUM_VALIDATION": os.environ.get("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required"),
    }


def open_stream(uri: str) -> pyarrow.NativeFile:
    """Opens one object to be read from its beginning; what ends in .gz is unpacked on the way.

    Raises:
        MissingObjectError, DeniedError, StorageError: see their docstrings.
    """
    filesystem, path = resolve_filesystem(uri)
    try:
        return filesystem.open_input_stream(path)
    except CLIENT_ERRORS as error:
        raise translate_error(error, uri) from error


def resolve_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns the pyarrow filesystem of ``uri`` and the path within it, for Ray Data and Ray Train."""
    from pyarrow import fs

    scheme, bucket, key = split(uri)
    if scheme == "file":
        return fs.LocalFileSystem(), "/" + key
    if scheme != "s3":
        filesystem, path = fs.FileSystem.from_uri(uri)
        return filesystem, path
    endpoint = find_s3_endpoint()
    region = open_s3_session().region_name or "us-east-1"
    patience = fs.AwsStandardS3RetryStrategy(max_attempts=MAX_S3_ATTEMPTS)
    if not endpoint:
        return fs.S3FileSystem(region=region, retry_strategy=patience), f"{bucket}/{key}"
    host_scheme, host = endpoint.split("://", 1)
    filesystem = fs.S3FileSystem(
        region=region, endpoint_override=host.rstrip("/"), scheme=host_scheme, retry_strategy=patience
    )
    return filesystem, f"{bucket}/{key}"
