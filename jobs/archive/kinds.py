"""What an archive may be: a prefix, an S3 Inventory, or a list of URIs; each becomes LISTED batches."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

import pyarrow as pa

from jobs import storage
from jobs.archive.coco import SUFFIX, read_coco
from jobs.archive.inventory import read_inventory
from jobs.archive.keys import LostTimes, parse_keys
from jobs.archive.listing import list_pages
from jobs.archive.selection import Selection
from jobs.archive.uri_list import read_list
from jobs.config import DEFAULT_KEY_PATTERN
from jobs.errors import MissingObjectError, RefusedError, RequestError, StorageError
from jobs.storage import ObjectInfo, uris
from jobs.tables.schema import LISTED

_LIST = re.compile(r"\.(csv|txt)(\.gz)?$|\.parquet$|\.json$", re.IGNORECASE)
_PART = re.compile(r"part-[^/]*\.(csv|txt|parquet)(\.gz)?", re.IGNORECASE)
_PART_MARK = re.compile(r"_SUCCESS|_committed_[^/]*|_started_[^/]*|\..*|_temporary/.*")
"""What Spark and Hadoop leave beside the parts of a table."""


class ArchiveKind(StrEnum):
    """How the objects of an archive are known."""

    PREFIX = "prefix"
    INVENTORY = "inventory"
    LIST = "list"


def detect_kind(archive: str) -> ArchiveKind:
    """Tells the kind of an archive by its URI's ending, or by the files of a folder that Spark wrote."""
    if archive.endswith("/manifest.json"):
        return ArchiveKind.INVENTORY
    return ArchiveKind.LIST if _LIST.search(archive) or list_parts(archive) else ArchiveKind.PREFIX


def list_parts(folder: str) -> list[str]:
    """Returns the URIs of the part files in a folder that holds nothing else; else none.

    Parts of 0 bytes, which Spark writes of partitions without rows, are left out beside others.
    """
    below, parts, filled = len(folder.rstrip("/")) + 1, [], []
    for info in storage.list_objects(folder):
        name = info.uri[below:]
        if _PART.fullmatch(name):
            parts.append(info.uri)
            filled += [info.uri] if info.size_bytes else []
        elif name and not _PART_MARK.fullmatch(name):
            return []
    return sorted(filled or parts)


def find_list_files(archive: str) -> list[str]:
    """Returns the files of a list: the list itself, or the parts of a folder, also of one that is named like a file.

    Raises:
        RequestError: something else has the name of a list, such as a folder of photos.
    """
    if not _LIST.search(archive):
        return list_parts(archive)
    try:
        asyncio.run(storage.read_size_async(archive))
    except MissingObjectError:
        return list_parts(archive) or [archive]
    except RefusedError as error:
        if parts := list_parts(archive):
            return parts
        raise RequestError(
            f"{error}: expected a list, or a folder of its parts alone (part-*.csv, .txt or .parquet)"
        ) from error
    except StorageError:
        return [archive]  # reading it says what is wrong
    return [archive]


def is_live_listing(archive: str, boxes: str | None = None) -> bool:
    """Tells whether a listing shows what is there now: that of a prefix does; lists and files of boxes may be old."""
    return boxes is None and detect_kind(archive) is ArchiveKind.PREFIX


def names_categories(archive: str, boxes: str | None = None) -> bool:
    """Tells whether the boxes of an archive come from a COCO file, which names their categories."""
    return boxes is not None or (archive.lower().endswith(SUFFIX) and detect_kind(archive) is ArchiveKind.LIST)


def stream_archive(
    archive: str,
    *,
    key_pattern: str = DEFAULT_KEY_PATTERN,
    selection: Selection | None = None,
    boxes: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """Streams an archive as LISTED batches, in no particular order; a list or an inventory may name an object twice.

    Args:
        archive: see `detect_kind`.
        key_pattern: matched at the beginning of each key below the prefix; of inventories and lists, which have none,
            below the bucket.
        selection: leaves out what is no photo; default: one without patterns.
        boxes: COCO file of boxes of photos below the archive, which are all that is wanted then.

    Raises:
        RequestError: an inventory or a list is not there, or not what it should be.
        MissingBucketError: the bucket does not exist.
        StorageError: storage refused or could not be reached.
    """
    pattern, selection = re.compile(key_pattern), selection or Selection()
    kind = detect_kind(archive)
    if boxes is not None:
        if kind is not ArchiveKind.PREFIX:
            raise RequestError(
                f"boxes need the folder that their photos are below, {archive} is a list or an inventory"
            )
        batches = read_coco(boxes, folder=archive, pattern=pattern)
    elif kind is ArchiveKind.INVENTORY:
        batches = read_inventory(archive, pattern=pattern)
    elif kind is ArchiveKind.LIST:
        batches = (batch for file in find_list_files(archive) for batch in read_any_list(file, pattern=pattern))
    else:
        below = len(archive) + 1
        batches = (_to_batch(page, below=below, pattern=pattern) for page in list_pages(archive) if page)
    lost = LostTimes(archive)
    for batch in batches:
        found = batch.column("image_uri").to_pylist()
        is_below = kind is ArchiveKind.PREFIX
        keys = [
            uri[len(archive) + 1 :] if is_below and uri.startswith(archive) else uris.split(uri)[2] for uri in found
        ]
        named = pa.array(keys, pa.string())
        if kind is not ArchiveKind.LIST:  # a list counts its own
            lost.count_keys(named, batch.column("captured_at"), pattern=pattern)
        yield selection.select(batch, named, is_list=boxes is not None or kind is ArchiveKind.LIST)
    lost.report()


def read_any_list(file: str, *, pattern: re.Pattern[str]) -> Iterator[pa.RecordBatch]:
    """Streams a list or a COCO file, whose names are relative to it, as LISTED batches."""
    if file.lower().endswith(SUFFIX):
        return read_coco(file, folder=file.rpartition("/")[0], pattern=pattern)
    return read_list(file, pattern=pattern)


def _to_batch(page: Sequence[ObjectInfo], *, below: int, pattern: re.Pattern[str]) -> pa.RecordBatch:
    columns = {
        "image_uri": [info.uri for info in page],
        "image_etag": [info.etag or None for info in page],
        "image_bytes": [info.size_bytes for info in page],
        "last_modified": [info.last_modified for info in page],
        "box": pa.nulls(len(page), pa.string()),
    }
    named = parse_keys([info.uri[below:] for info in page], pattern)
    return pa.record_batch(columns | named, schema=LISTED)
