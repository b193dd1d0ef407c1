"""Object storage and local files behind one set of functions on URIs: all that others know of either.

boto3 resolves S3 credentials and endpoint from the standard AWS_* variables, obstore moves the bytes.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import obstore

from jobs.storage import local_files
from jobs.storage.clients import open_store
from jobs.storage.errors import list_client_errors, make_conflict, translate_error
from jobs.storage.listing import list_objects
from jobs.storage.odd_keys import check_size, delete_odd_key, is_odd, read_odd_key, read_odd_size
from jobs.storage.uris import split

_SHOWN = {
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".png": "image/png",
}
"""Content types of what people open by a link to the store: without one, a browser saves it in place of showing it."""


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
        if is_odd(scheme, key):
            return await asyncio.to_thread(read_odd_key, scheme, bucket, key, max_bytes=max_bytes)
        answer = await obstore.get_async(open_store(scheme, bucket), key)
        check_size(uri, answer.meta["size"], max_bytes=max_bytes)
        return memoryview(await answer.bytes_async()), (answer.meta["e_tag"] or "").strip('"')
    except list_client_errors() as error:
        raise translate_error(error, uri) from error


async def read_size_async(uri: str) -> int:
    """Asks for the size of one object in bytes, without its bytes."""
    scheme, bucket, key = split(uri)
    try:
        if scheme == "file":
            return local_files.read_size(local_files.locate(key))
        if is_odd(scheme, key):
            return await asyncio.to_thread(read_odd_size, scheme, bucket, key)
        return (await obstore.head_async(open_store(scheme, bucket), key))["size"]
    except list_client_errors() as error:
        raise translate_error(error, uri) from error


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
        shown = _SHOWN.get(Path(key).suffix)
        attributes: Any = {"Content-Type": shown} if shown else None
        return (obstore.put(store, key, data, mode=mode, attributes=attributes)["e_tag"] or "").strip('"')
    except list_client_errors() as error:
        raise translate_error(error, uri, needs="write") from error


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
        raise make_conflict(uri)
    return {"e_tag": found["e_tag"], "version": found["version"]}


def upload(uri: str, path: Path) -> None:
    """Writes one local file as one object, atomically and without holding it in memory."""
    scheme, bucket, key = split(uri)
    try:
        if scheme == "file":
            local_files.put_file(local_files.locate(key), path)
            return
        obstore.put(open_store(scheme, bucket), key, path, mode="overwrite")
    except list_client_errors() as error:
        raise translate_error(error, uri, needs="write") from error


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
    except list_client_errors() as error:
        raise translate_error(error, uri, needs="delete") from error


def delete_tree(uri: str) -> None:
    """Deletes every object under ``uri``; nothing there is no error."""
    scheme, bucket, key = split(uri)
    if scheme == "file":
        with suppress(FileNotFoundError):
            shutil.rmtree(local_files.locate(key))
        return
    keys = [split(info.uri)[2] for info in list_objects(uri)]
    ordinary = [key for key in keys if not is_odd(scheme, key)]
    try:
        if ordinary:
            obstore.delete(open_store(scheme, bucket), ordinary)
        for key in set(keys).difference(ordinary):  # the folder markers that pyarrow leaves end in a slash
            delete_odd_key(scheme, bucket, key)
    except list_client_errors() as error:
        raise translate_error(error, uri, needs="delete") from error
