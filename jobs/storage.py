"""Object storage and local files behind one set of functions on URIs: the only file that opens either.

boto3 resolves S3 credentials and endpoint from the standard AWS_* variables, obstore moves the bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from jobs.errors import ConflictError, DeniedError, MissingBucketError, MissingObjectError, StorageError
from jobs.uris import split

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs

    AnyStore = S3Store | GCSStore | AzureStore | LocalStore

_CLIENT = {"allow_http": True, "timeout": "60s", "connect_timeout": "5s"}
_RETRY = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_ODD_KEY = re.compile(r"(^|/)(\.{0,2})(/|$)|[\x00-\x1f\x7f]")
"""Legal S3 keys that obstore's path type refuses or normalises: empty, dot and control-character segments."""


@dataclass(frozen=True)
class ObjectInfo:
    """One listed object. ``etag`` has no quotes; ``size_bytes`` and ``last_modified`` as of the listing."""

    uri: str
    etag: str
    size_bytes: int
    last_modified: datetime


@cache
def _s3_session() -> Any:
    import boto3

    return boto3.Session()


@cache
def _s3_client() -> Any:
    from botocore.config import Config

    retries: Any = {"max_attempts": 4, "mode": "standard"}
    return _s3_session().client("s3", config=Config(connect_timeout=5, read_timeout=60, retries=retries))


@cache
def _store(scheme: str, bucket: str) -> AnyStore:
    client: Any = _CLIENT
    retry: Any = _RETRY
    if scheme == "file":
        return LocalStore("/", mkdir=True)
    if scheme == "gs":
        return GCSStore(bucket, client_options=client, retry_config=retry)
    if scheme == "az":
        return AzureStore(bucket, client_options=client, retry_config=retry)
    from obstore.auth.boto3 import Boto3CredentialProvider

    endpoint = _s3_endpoint()
    place: Any = {"endpoint": endpoint} if endpoint else {}
    return S3Store(
        bucket,
        credential_provider=Boto3CredentialProvider(_s3_session()),
        region=_s3_session().region_name or "us-east-1",
        client_options=client,
        retry_config=retry,
        virtual_hosted_style_request=not endpoint,
        **place,
    )


def as_storage_error(error: Exception, uri: str) -> StorageError:
    """Translates any client's exception, or pyarrow's, into one line of ours."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if code == "NoSuchBucket" or "<Code>NoSuchBucket<" in message:
        return MissingBucketError(f"bucket of {uri} does not exist: create it or correct the name")
    if isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404"):
        return MissingObjectError(f"{uri} does not exist")
    if isinstance(error, (PermissionDeniedError, PermissionError)) or code in ("AccessDenied", "403"):
        return DeniedError(f"access to {uri} was denied: the credentials lack the permission")
    if isinstance(error, (AlreadyExistsError, PreconditionError)):
        return ConflictError(f"{uri} was written by someone else in the meantime")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return DeniedError(f"the storage of {uri} does not accept these credentials ({code}): check AWS_ACCESS_KEY_ID")
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return DeniedError(f"no credentials found for {uri}: set the AWS_* variables, a profile or a role")
    return StorageError(f"{uri} could not be reached: {re.sub(r'<[?]?xml.*', '', message)[:300].strip()}")


_CLIENT_ERRORS = (BaseError, OSError, ValueError)


def _s3_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (*_CLIENT_ERRORS, BotoCoreError, ClientError)


def read_with_etag(uri: str) -> tuple[bytes, str]:
    """Reads one object whole; returns its bytes and its entity tag (no quotes).

    Raises:
        MissingObjectError, DeniedError, StorageError: see their docstrings.
    """
    data, etag = asyncio.run(read_async(uri))
    return bytes(data), etag


def read(uri: str) -> bytes:
    """Reads one object whole (see `read_with_etag`)."""
    return read_with_etag(uri)[0]


async def read_async(uri: str) -> tuple[bytes | memoryview, str]:
    """`read_with_etag` for many concurrent reads in one event loop; the bytes where the client has put them."""
    scheme, bucket, key = split(uri)
    try:
        if _ODD_KEY.search(key) and scheme == "s3":
            return await asyncio.to_thread(_read_odd_key, bucket, key)
        if _ODD_KEY.search(key) and scheme == "file":
            return await asyncio.to_thread(Path("/" + key).read_bytes), ""
        answer = await obstore.get_async(_store(scheme, bucket), key)
        return memoryview(await answer.bytes_async()), (answer.meta["e_tag"] or "").strip('"')
    except _s3_errors() as error:
        raise as_storage_error(error, uri) from error


def _read_odd_key(bucket: str, key: str) -> tuple[bytes, str]:
    answer = _s3_client().get_object(Bucket=bucket, Key=key)
    return answer["Body"].read(), answer["ETag"].strip('"')


def write(uri: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None) -> str:
    """Writes one object whole and atomically; returns its new entity tag (no quotes).

    Args:
        uri: where.
        data: the object's bytes.
        if_absent: write only if nothing is there.
        if_etag: write only if the object still has this entity tag (from `read_with_etag`).

    Raises:
        ConflictError: the condition did not hold.
    """
    scheme, bucket, key = split(uri)
    store = _store(scheme, bucket)
    try:
        if if_etag is not None and scheme == "file":
            return _replace_file(Path("/" + key), data, if_etag=if_etag)
        # Unquoted, because Ceph's gateway compares the header literally with its unquoted tag.
        mode: Any = {"e_tag": if_etag} if if_etag is not None else "create" if if_absent else "overwrite"
        return (obstore.put(store, key, data, mode=mode)["e_tag"] or "").strip('"')
    except _s3_errors() as error:
        raise as_storage_error(error, uri) from error


def upload(uri: str, path: Path) -> None:
    """Writes one local file as one object, atomically and without holding it in memory."""
    scheme, bucket, key = split(uri)
    try:
        obstore.put(_store(scheme, bucket), key, path, mode="overwrite")
    except _s3_errors() as error:
        raise as_storage_error(error, uri) from error


def _replace_file(path: Path, data: bytes, *, if_etag: str) -> str:
    """Compare and swap on a local file, which obstore does not offer: a lock that dies with its process."""
    import fcntl

    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_with_etag(f"file://{path}")[1] != if_etag:
            raise ConflictError(f"{path} was written by someone else in the meantime")
        return (obstore.put(_store("file", ""), str(path).removeprefix("/"), data)["e_tag"] or "").strip('"')


def delete(uri: str) -> None:
    """Deletes one object; nothing there is no error."""
    scheme, bucket, key = split(uri)
    try:
        obstore.delete(_store(scheme, bucket), key)
    except FileNotFoundError:
        return
    except _s3_errors() as error:
        raise as_storage_error(error, uri) from error


def delete_tree(uri: str) -> None:
    """Deletes every object under ``uri``; nothing there is no error."""
    scheme, bucket, _ = split(uri)
    keys = [split(info.uri)[2] for info in list_objects(uri)]
    ordinary = [key for key in keys if not _ODD_KEY.search(key)]
    if ordinary:
        obstore.delete(_store(scheme, bucket), ordinary)
    for key in set(keys).difference(ordinary) if scheme == "s3" else ():
        _s3_client().delete_object(Bucket=bucket, Key=key)  # the folder markers that pyarrow leaves end in a slash
    if scheme == "file" and Path("/" + split(uri)[2]).is_dir():
        import shutil

        shutil.rmtree("/" + split(uri)[2])


def list_objects(uri: str) -> Iterator[ObjectInfo]:
    """Lists every object under ``uri`` (a folder: ``uri`` plus a slash, or a whole bucket) in key order of the store.

    Raises:
        MissingBucketError: the bucket does not exist. An empty prefix is an empty listing.
    """
    for page in list_between(uri):
        yield from page


def list_between(uri: str, *, after: str = "", until: str = "") -> Iterator[list[ObjectInfo]]:
    """Lists the objects under ``uri`` page by page, on S3 only those whose key lies in (after, until].

    Args:
        uri: a folder, see `list_objects`.
        after: key, exclusive; empty begins at the first.
        until: key, inclusive; empty goes on to the last.

    Raises:
        MissingBucketError: the bucket does not exist.
    """
    scheme, bucket, prefix = _folder(uri)
    try:
        if scheme != "s3":
            yield from _list_other(scheme, bucket, prefix)
            return
        for page in _list_s3(bucket, prefix, after=after):
            yield [info for info in page if not until or split(info.uri)[2] <= until]
            if until and page and split(page[-1].uri)[2] > until:
                return
    except _s3_errors() as error:
        raise as_storage_error(error, uri) from error


def list_level(uri: str, *, most_pages: int = 20) -> tuple[list[ObjectInfo], list[str]]:
    """Looks at one level: the objects right under ``uri``, and the URIs of its folders, without a trailing slash.

    Of S3 it may see only the beginning, for the folders that it names serve to share the listing out, and lists no
    object. The other stores name every folder and object.

    Args:
        uri: a folder, see `list_objects`.
        most_pages: requests, of 1,000 entries each, on S3.
    """
    scheme, bucket, prefix = _folder(uri)
    root = f"{scheme}://{bucket}/"
    try:
        if scheme == "s3":
            pages = _s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
            seen = itertools.islice(pages, most_pages)
            return [], [root + item["Prefix"][:-1] for page in seen for item in page.get("CommonPrefixes", [])]
        level = obstore.list_with_delimiter(_store(scheme, bucket), prefix=prefix or None)
        folders = [root + name.rstrip("/") for name in level["common_prefixes"]]
        return [_info(root, item) for item in level["objects"]], folders
    except _s3_errors() as error:
        raise as_storage_error(error, uri) from error


def _folder(uri: str) -> tuple[str, str, str]:
    scheme, bucket, key = split(uri)
    return scheme, bucket, key.rstrip("/") + "/" if key else ""


def _list_s3(bucket: str, prefix: str, *, after: str = "") -> Iterator[list[ObjectInfo]]:
    # boto3, not obstore, lists S3: one key with a "." or empty segment ends obstore's whole listing with an error.
    start: Any = {"StartAfter": after} if after else {}
    for page in _s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **start):
        yield [
            ObjectInfo(
                f"s3://{bucket}/{item['Key']}",
                item["ETag"].strip('"'),
                item["Size"],
                item["LastModified"].astimezone(UTC),
            )
            for item in page.get("Contents", [])
        ]


def _list_other(scheme: str, bucket: str, prefix: str) -> Iterator[list[ObjectInfo]]:
    root = f"{scheme}://{bucket}/"
    for batch in obstore.list(_store(scheme, bucket), prefix=prefix or None, chunk_size=1000):
        yield [_info(root, item) for item in batch]


def _info(root: str, item: Any) -> ObjectInfo:
    return ObjectInfo(root + item["path"], (item["e_tag"] or "").strip('"'), item["size"], item["last_modified"])


def worker_environment() -> dict[str, str]:
    """Environment that every process needs which writes through pyarrow.

    S3-compatible stores behind AWS_ENDPOINT_URL may refuse the checksum trailers that the AWS SDK sends by default
    (Ceph before Squid: 411 MissingContentLength).
    """
    if not _s3_endpoint():
        return {}
    return {
        "AWS_REQUEST_CHECKSUM_CALCULATION": os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
        "AWS_RESPONSE_CHECKSUM_VALIDATION": os.environ.get("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required"),
    }


def _s3_endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def open_stream(uri: str) -> pyarrow.NativeFile:
    """Opens one object to be read from its beginning; what ends in .gz is unpacked on the way.

    Raises:
        MissingObjectError, DeniedError, StorageError: see their docstrings.
    """
    filesystem, path = arrow_filesystem(uri)
    try:
        return filesystem.open_input_stream(path)
    except _CLIENT_ERRORS as error:
        raise as_storage_error(error, uri) from error


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The pyarrow filesystem of ``uri`` and the path within it, for Ray Data and Ray Train."""
    from pyarrow import fs

    scheme, bucket, key = split(uri)
    if scheme == "file":
        return fs.LocalFileSystem(), "/" + key
    if scheme != "s3":
        filesystem, path = fs.FileSystem.from_uri(uri)
        return filesystem, path
    endpoint = _s3_endpoint()
    region = _s3_session().region_name or "us-east-1"
    if not endpoint:
        return fs.S3FileSystem(region=region), f"{bucket}/{key}"
    host_scheme, host = endpoint.split("://", 1)
    filesystem = fs.S3FileSystem(region=region, endpoint_override=host.rstrip("/"), scheme=host_scheme)
    return filesystem, f"{bucket}/{key}"
