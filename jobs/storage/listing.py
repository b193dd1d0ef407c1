"""Lists objects and files: pages of a prefix, or one level of it. Part of jobs.storage.

boto3 lists S3 and Google's storage, obstore lists Azure's, for one key with a "." or empty part ends obstore's whole
listing with an error. On Azure such a part of the listing is Microsoft's client's, which takes longer.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import obstore

from jobs.storage import azure, local_files
from jobs.storage.clients import open_boto3_client, open_store
from jobs.storage.errors import is_odd_path, list_client_errors, translate_error
from jobs.storage.odd_keys import is_odd
from jobs.storage.uris import split


@dataclass(frozen=True)
class ObjectInfo:
    """One listed object. ``etag`` has no quotes; ``size_bytes`` and ``last_modified`` as of the listing."""

    uri: str
    etag: str
    size_bytes: int
    last_modified: datetime


def list_objects(uri: str) -> Iterator[ObjectInfo]:
    """Lists every object under ``uri`` (a folder: ``uri`` plus a slash, or a whole bucket) in key order of the store.

    Raises:
        MissingBucketError: the bucket does not exist. An empty prefix is an empty listing.
    """
    for page in list_between(uri):
        yield from page


def list_between(uri: str, *, after: str = "", until: str = "") -> Iterator[list[ObjectInfo]]:
    """Lists the objects under ``uri`` page by page, on S3 and Google's storage only those with keys in (after, until].

    Args:
        uri: a folder, see `list_objects`.
        after: key, exclusive; empty begins at the first.
        until: key, inclusive; empty goes on to the last.

    Raises:
        MissingBucketError: the bucket does not exist.
    """
    scheme, bucket, prefix = split_folder(uri)
    try:
        if scheme == "file":
            yield from (_describe_files(entries) for entries in local_files.list_pages(local_files.locate(prefix)))
            return
        if scheme == "az":
            yield from _list_azure(bucket, prefix)
            return
        for page in _list_by_boto3(scheme, bucket, prefix, after=after):
            yield [info for info in page if not until or split(info.uri)[2] <= until]
            if until and page and split(page[-1].uri)[2] > until:
                return
    except list_client_errors() as error:
        raise translate_error(error, uri, needs="list") from error


def list_level(uri: str, *, max_pages: int = 20) -> tuple[list[ObjectInfo], list[str]]:
    """Looks at one level: the objects right under ``uri``, and the URIs of its folders, without a trailing slash.

    Of S3 and Google's storage it may see only the beginning, for the folders that it names serve to share the listing
    out, and lists no object. The other stores name every folder and object; on Azure the objects of a folder whose name
    is empty or dotted are among the objects of the level, for no other call can name that folder.

    Args:
        uri: a folder, see `list_objects`.
        max_pages: requests, of 1,000 entries each, on S3 and Google's storage.
    """
    scheme, bucket, prefix = split_folder(uri)
    root = f"{scheme}://{bucket}/"
    try:
        if scheme == "file":
            files, keys = local_files.list_level(local_files.locate(prefix))
            return _describe_files(files), [f"file:///{key}" for key in keys]
        if scheme == "az":
            return _list_azure_level(bucket, prefix)
        client = open_boto3_client(scheme)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
        seen = itertools.islice(pages, max_pages)
        return [], [root + item["Prefix"][:-1] for page in seen for item in page.get("CommonPrefixes", [])]
    except list_client_errors() as error:
        raise translate_error(error, uri, needs="list") from error


def split_folder(uri: str) -> tuple[str, str, str]:
    """Splits a folder's URI into scheme, bucket and prefix; the prefix ends in a slash, or is empty."""
    scheme, bucket, key = split(uri)
    return scheme, bucket, key.rstrip("/") + "/" if key else ""


def _list_by_boto3(scheme: str, bucket: str, prefix: str, *, after: str = "") -> Iterator[list[ObjectInfo]]:
    start: Any = {"StartAfter": after} if after else {}
    client = open_boto3_client(scheme)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **start):
        yield [
            ObjectInfo(
                f"{scheme}://{bucket}/{item['Key']}",
                item["ETag"].strip('"'),
                item["Size"],
                item["LastModified"].astimezone(UTC),
            )
            for item in page.get("Contents", [])
        ]


def _list_azure(bucket: str, prefix: str) -> Iterator[list[ObjectInfo]]:
    last = ""
    if _can_obstore_begin(bucket, prefix):
        try:
            for batch in obstore.list(open_store("az", bucket), prefix=prefix or None, chunk_size=azure.PAGE_OBJECTS):
                yield [_restore_marker(_info(bucket, item)) for item in batch]
                last = batch[-1]["path"] if batch else last
            return
        except list_client_errors() as error:
            if not is_odd_path(error):
                raise
    for page in azure.list_blobs(bucket, prefix):
        yield [_describe_blob(bucket, blob) for blob in page if not _was_listed(blob.name, last)]


def _list_azure_level(bucket: str, prefix: str) -> tuple[list[ObjectInfo], list[str]]:
    root = f"az://{bucket}/"
    if _can_obstore_begin(bucket, prefix):
        try:
            level = obstore.list_with_delimiter(open_store("az", bucket), prefix=prefix or None)
            folders = [root + name.rstrip("/") for name in level["common_prefixes"]]
            return [_restore_marker(_info(bucket, item)) for item in level["objects"]], folders
        except list_client_errors() as error:
            if not is_odd_path(error):
                raise
    blobs, names = azure.walk_level(bucket, prefix)
    odd = {name for name in names if is_odd("az", name[:-1])}
    blobs += [blob for name in odd for page in azure.list_blobs(bucket, name) for blob in page]
    return [_describe_blob(bucket, blob) for blob in blobs], [root + name[:-1] for name in names if name not in odd]


def _can_obstore_begin(bucket: str, prefix: str) -> bool:
    """Tells whether obstore leaves out nothing at the beginning of keys, where it takes a slash away."""
    return bool(prefix) or not azure.has_key_with_prefix(bucket, "/")


def _was_listed(key: str, last: str) -> bool:
    """Tells whether a key stands not behind ``last`` in a listing, whose order may be that of bytes or of UTF-16."""
    return key <= last and key.encode("utf-16-be") <= last.encode("utf-16-be")


def _restore_marker(info: ObjectInfo) -> ObjectInfo:
    """Gives the marker of a folder, which obstore names without its slash, its own key again."""
    if info.size_bytes:
        return info
    _, bucket, key = split(info.uri)
    try:
        obstore.head(open_store("az", bucket), key)
    except FileNotFoundError:
        return replace(info, uri=info.uri + "/")
    return info


def _info(bucket: str, item: Any) -> ObjectInfo:
    etag = (item["e_tag"] or "").strip('"')
    return ObjectInfo(f"az://{bucket}/{item['path']}", etag, item["size"], item["last_modified"])


def _describe_blob(bucket: str, blob: Any) -> ObjectInfo:
    """Describes a blob of Microsoft's client; a folder of a hierarchical account gets the slash of a marker."""
    is_folder = (blob.metadata or {}).get("hdi_isfolder") == "true" and not blob.name.endswith("/")
    name = f"{blob.name}/" if is_folder else blob.name
    return ObjectInfo(f"az://{bucket}/{name}", str(blob.etag).strip('"'), blob.size, blob.last_modified)


def _describe_files(entries: Iterable[os.DirEntry[bytes]]) -> list[ObjectInfo]:
    """Describes files; one that was deleted or renamed since its folder was read is left out."""
    found = []
    for entry in entries:
        with suppress(FileNotFoundError):
            key, etag, size_bytes, last_modified = local_files.describe(entry)
            found.append(ObjectInfo(f"file:///{key}", etag, size_bytes, last_modified))
    return found
