"""Object storage and local files behind one set of functions on URIs: all that others know of either.

boto3 resolves S3 credentials and endpoint from the standard AWS_* variables, obstore moves the bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore

from jobs.errors import ConflictError, TooLargeError
from jobs.storage import local_files
from jobs.storage.clients import open_s3_client, open_store
from jobs.storage.errors import list_s3_errors, translate_error
from jobs.storage.uris import split

_ODD_KEY = re.compile(r"(^|/)(\.{0,2})(/|$)|[\x00-\x1f\x7f]")
"""Legal S3 keys that obstore's path type refuses or normalises: empty, dot and control-character segments."""


@dataclass(frozen=True)
class ObjectInfo:
    """One listed object. ``etag`` has no quotes; ``size_bytes`` and ``last_modified`` as of the listing."""

    uri: str
    etag: str
    size_bytes: int
    last_modified: datetime


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


async def read_async(uri: str, *, max_bytes: int | None = None) -> tuple[bytes | memoryview, str]:
    """Reads one object like `read_with_etag`, for many reads at once in one event loop; copies no bytes.

    Raises:
        TooLargeError: it has more than ``max_bytes``, as the storage says before it sends them.
    """
    scheme, bucket, key = split(uri)
    try:
        if scheme == "file":
            return await asyncio.to_thread(local_files.read_file, local_files.locate(key), max_bytes=max_bytes)
        if _ODD_KEY.search(key) and scheme == "s3":
            return await asyncio.to_thread(_read_odd_key, bucket, key, max_bytes=max_bytes)
        answer = await obstore.get_async(open_store(scheme, bucket), key)
        check_size(uri, answer.meta["size"], max_bytes=max_bytes)
        return memoryview(await answer.bytes_async()), (answer.meta["e_tag"] or "").strip('"')
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


async def read_size_async(uri: str) -> int:
    """Asks for the size of one object in bytes, without its bytes."""
    scheme, bucket, key = split(uri)
    try:
        if scheme == "file":
            return local_files.read_size(local_files.locate(key))
        if _ODD_KEY.search(key) and scheme == "s3":
            return int((await asyncio.to_thread(open_s3_client().head_object, Bucket=bucket, Key=key))["ContentLength"])
        return (await obstore.head_async(open_store(scheme, bucket), key))["size"]
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


def check_size(uri: str, size_bytes: int, *, max_bytes: int | None) -> None:
    """Raises TooLargeError for an object of more than ``max_bytes``."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise TooLargeError(uri, size_bytes=size_bytes, max_bytes=max_bytes)


def _read_odd_key(bucket: str, key: str, *, max_bytes: int | None) -> tuple[bytes, str]:
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError

    tries_left = 3
    while True:  # boto3 tries requests again, but not bodies that break off
        answer = open_s3_client().get_object(Bucket=bucket, Key=key)
        check_size(f"s3://{bucket}/{key}", answer["ContentLength"], max_bytes=max_bytes)
        try:
            return answer["Body"].read(), answer["ETag"].strip('"')
        except (IncompleteReadError, ResponseStreamingError):
            tries_left -= 1
            if not tries_left:
                raise


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
    try:
        if scheme == "file":
            return local_files.write_file(local_files.locate(key), data, if_absent=if_absent, if_etag=if_etag)
        store = open_store(scheme, bucket)
        mode: Any = "create" if if_absent else "overwrite"
        if if_etag is not None:
            mode = make_condition(uri, if_etag)
        return (obstore.put(store, key, data, mode=mode)["e_tag"] or "").strip('"')
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


def make_condition(uri: str, if_etag: str) -> Any:
    """Returns obstore's condition of a write: that the object still has this entity tag.

    Google's storage compares generations instead, so that of the object is asked for first. It belongs to the tag that
    came with it: a write in between has another generation, and the condition does not hold.

    Raises:
        ConflictError: the object has another entity tag already.
    """
    scheme, bucket, key = split(uri)
    if scheme != "gs":
        # Ceph's gateway compares the header literally with its unquoted tag; Azure wants the quotes.
        return {"e_tag": f'"{if_etag}"' if scheme == "az" else if_etag}
    found = obstore.head(open_store(scheme, bucket), key)
    if (found["e_tag"] or "").strip('"') != if_etag:
        raise ConflictError(f"{uri} was written by someone else in the meantime")
    return {"e_tag": found["e_tag"], "version": found["version"]}


def upload(uri: str, path: Path) -> None:
    """Writes one local file as one object, atomically and without holding it in memory."""
    scheme, bucket, key = split(uri)
    try:
        if scheme == "file":
            local_files.put_file(local_files.locate(key), path)
            return
        obstore.put(open_store(scheme, bucket), key, path, mode="overwrite")
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


def delete(uri: str) -> None:
    """Deletes one object; nothing there is no error."""
    scheme, bucket, key = split(uri)
    try:
        if scheme == "file":
            local_files.locate(key).unlink(missing_ok=True)
            return
        obstore.delete(open_store(scheme, bucket), key)
    except (FileNotFoundError, NotADirectoryError):
        return
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


def delete_tree(uri: str) -> None:
    """Deletes every object under ``uri``; nothing there is no error."""
    scheme, bucket, key = split(uri)
    if scheme == "file":
        with suppress(FileNotFoundError):
            shutil.rmtree(local_files.locate(key))
        return
    keys = [split(info.uri)[2] for info in list_objects(uri)]
    ordinary = [key for key in keys if not _ODD_KEY.search(key)]
    if ordinary:
        obstore.delete(open_store(scheme, bucket), ordinary)
    for key in set(keys).difference(ordinary) if scheme == "s3" else ():
        open_s3_client().delete_object(Bucket=bucket, Key=key)  # the folder markers that pyarrow leaves end in a slash


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
    scheme, bucket, prefix = split_folder(uri)
    try:
        if scheme != "s3":
            yield from _list_other(scheme, bucket, prefix)
            return
        for page in _list_s3(bucket, prefix, after=after):
            yield [info for info in page if not until or split(info.uri)[2] <= until]
            if until and page and split(page[-1].uri)[2] > until:
                return
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


def list_level(uri: str, *, max_pages: int = 20) -> tuple[list[ObjectInfo], list[str]]:
    """Looks at one level: the objects right under ``uri``, and the URIs of its folders, without a trailing slash.

    Of S3 it may see only the beginning, for the folders that it names serve to share the listing out, and lists no
    object. The other stores name every folder and object.

    Args:
        uri: a folder, see `list_objects`.
        max_pages: requests, of 1,000 entries each, on S3.
    """
    scheme, bucket, prefix = split_folder(uri)
    root = f"{scheme}://{bucket}/"
    try:
        if scheme == "s3":
            pages = (
                open_s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
            )
            seen = itertools.islice(pages, max_pages)
            return [], [root + item["Prefix"][:-1] for page in seen for item in page.get("CommonPrefixes", [])]
        if scheme == "file":
            files, keys = local_files.list_level(local_files.locate(prefix))
            return _describe_files(files), [f"file:///{key}" for key in keys]
        level = obstore.list_with_delimiter(open_store(scheme, bucket), prefix=prefix or None)
        folders = [root + name.rstrip("/") for name in level["common_prefixes"]]
        return [_info(root, item) for item in level["objects"]], folders
    except list_s3_errors() as error:
        raise translate_error(error, uri) from error


def split_folder(uri: str) -> tuple[str, str, str]:
    """Splits a folder's URI into scheme, bucket and prefix; the prefix ends in a slash, or is empty."""
    scheme, bucket, key = split(uri)
    return scheme, bucket, key.rstrip("/") + "/" if key else ""


def _list_s3(bucket: str, prefix: str, *, after: str = "") -> Iterator[list[ObjectInfo]]:
    # boto3, not obstore, lists S3: one key with a "." or empty segment ends obstore's whole listing with an error.
    start: Any = {"StartAfter": after} if after else {}
    for page in open_s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **start):
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
    if scheme == "file":
        for entries in local_files.list_pages(local_files.locate(prefix)):
            yield _describe_files(entries)
        return
    root = f"{scheme}://{bucket}/"
    for batch in obstore.list(open_store(scheme, bucket), prefix=prefix or None, chunk_size=1000):
        yield [_info(root, item) for item in batch]


def _info(root: str, item: Any) -> ObjectInfo:
    return ObjectInfo(root + item["path"], (item["e_tag"] or "").strip('"'), item["size"], item["last_modified"])


def _describe_files(entries: Iterable[os.DirEntry[bytes]]) -> list[ObjectInfo]:
    """Describes files; one that was deleted or renamed since its folder was read is left out."""
    found = []
    for entry in entries:
        with suppress(FileNotFoundError):
            key, etag, size_bytes, last_modified = local_files.describe(entry)
            found.append(ObjectInfo(f"file:///{key}", etag, size_bytes, last_modified))
    return found
