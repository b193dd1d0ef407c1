"""What an archive may be: a prefix, an S3 Inventory, or a CSV or Parquet list of URIs; each becomes LISTED batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

import pyarrow as pa

from jobs.archive.keys import parse_keys
from jobs.archive.listing import list_pages
from jobs.config import DEFAULT_KEY_PATTERN
from jobs.storage import ObjectInfo
from jobs.tables.schema import LISTED


class ArchiveKind(StrEnum):
    """How the objects of an archive are known."""

    PREFIX = "prefix"
    INVENTORY = "inventory"
    LIST = "list"


def detect_kind(archive: str) -> ArchiveKind:
    """Tells the kind of an archive by its URI's ending."""
    if archive.endswith("/manifest.json"):
        return ArchiveKind.INVENTORY
    return ArchiveKind.LIST if archive.endswith((".csv", ".csv.gz", ".parquet")) else ArchiveKind.PREFIX


def stream_archive(archive: str, *, key_pattern: str = DEFAULT_KEY_PATTERN) -> Iterator[pa.RecordBatch]:
    """Streams an archive as LISTED batches, in no particular order; a list or an inventory may name an object twice.

    Args:
        archive: see `detect_kind`.
        key_pattern: matched at the beginning of each key below the prefix; of inventories and lists, which have none,
            below the bucket.

    Raises:
        RequestError: an inventory or a list is not what it should be.
        MissingBucketError: the bucket does not exist.
        StorageError: storage refused or could not be reached.
    """
    pattern = re.compile(key_pattern)
    if detect_kind(archive) is ArchiveKind.INVENTORY:
        from jobs.archive.inventory import read_inventory

        yield from read_inventory(archive, pattern=pattern)
    elif detect_kind(archive) is ArchiveKind.LIST:
        from jobs.archive.uri_list import read_list

        yield from read_list(archive, pattern=pattern)
    else:
        below = len(archive) + 1
        yield from (_to_batch(page, below=below, pattern=pattern) for page in list_pages(archive) if page)


def _to_batch(page: Sequence[ObjectInfo], *, below: int, pattern: re.Pattern[str]) -> pa.RecordBatch:
    columns = {
        "image_uri": [info.uri for info in page],
        "image_etag": [info.etag or None for info in page],
        "image_bytes": [info.size_bytes for info in page],
        "last_modified": [info.last_modified for info in page],
    }
    named = parse_keys([info.uri[below:] for info in page], pattern)
    return pa.record_batch(columns | named, schema=LISTED)
