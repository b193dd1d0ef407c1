"""The same storage as pyarrow sees it: for Ray Data and Ray Train, which write through it, and to read as a stream.

pyarrow is imported where it is called: it takes 0.15 s of CPU, which a command's --help need not spend.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from jobs.storage.clients import CONNECT_TIMEOUT_S, MAX_S3_ATTEMPTS
from jobs.storage.errors import CLIENT_ERRORS, translate_error
from jobs.storage.local_files import locate
from jobs.storage.s3_settings import find_bucket_settings, find_ca_bundle, find_s3_endpoint, is_requester_pays
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
        return filesystem.open_input_stream(path, compression="gzip" if path.lower().endswith(".gz") else None)
    except CLIENT_ERRORS as error:
        raise translate_error(error, uri) from error


def resolve_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns the pyarrow filesystem of ``uri`` and the path within it, for Ray Data and Ray Train."""
    from pyarrow import fs

    scheme, bucket, key = split(uri)
    if scheme == "file":
        return fs.LocalFileSystem(), str(locate(key))
    if scheme == "s3" and not is_requester_pays():
        return open_s3_filesystem(bucket), f"{bucket}/{key}"
    return open_other_filesystem(scheme), f"{bucket}/{key}"


@cache
def open_other_filesystem(scheme: str) -> pyarrow.fs.FileSystem:
    """Opens gs://, az:// or an S3 that the caller pays for through obstore, with the settings that read photos."""
    from jobs.storage.obstore_filesystem import open_obstore_filesystem

    return open_obstore_filesystem(scheme)


@cache
def open_s3_filesystem(bucket: str) -> pyarrow.fs.S3FileSystem:
    """Opens pyarrow's client of a bucket of S3, with the settings that boto3 resolved."""
    from pyarrow import fs

    settings = find_bucket_settings(bucket)
    scheme, host = settings.endpoint.split("://", 1)
    return fs.S3FileSystem(
        region=settings.region,
        scheme=scheme,
        endpoint_override=host,
        force_virtual_addressing=settings.is_virtual,
        tls_ca_file_path=find_ca_bundle(),
        connect_timeout=CONNECT_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MAX_S3_ATTEMPTS),
    )
