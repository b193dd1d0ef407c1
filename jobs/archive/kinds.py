"""What an archive may be: a prefix, an S3 Inventory, or a CSV or Parquet list of URIs; each becomes LISTED batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

import pyarrow as pa

from jobs.archive.keys import named_by_key
from jobs.archive.listing import list_pages
from jobs.config import DEFAULT_KEY_PATTERN
from jobs.storage.objects import ObjectInfo
from jobs.tables.schema import LISTED


class Kind(StrEnum):
    """How the objects of an archive are known."""

    PREFIX = "prefix"
    INVENTORY = "inventory"
    LIST = "list"


def kind_of(archive: str) -> Kind:
    """Tells by the URI's ending."""
    if archive.endswith("/manifest.json"):
        return Kind.INVENTORY
    return Kind.LIST if archive.endswith((".csv", ".csv.gz", ".parquet")) else Kind.PREFIX


def listed(archive: str, *, key_pattern: str = DEFAULT_KEY_PATTERN) -> Iterator[pa.RecordBatch]:
    """Streams an archive as LISTED batches, in no particular order; a list or an inventory may name an object twice.

    Args:
        archive: see `kind_of`.
        key_pattern: matched at the beginning of each key below the prefix; of inventories and lists, which have none,
            below the bucket.

    Raises:
        RequestError: an inventory or a list is not what it should be.
        MissingBucketError: the bucket does not exist.
        StorageError: storage refused or could not be reached.
    """
    pattern = re.compile(key_pattern)
    if kind_of(archive) is Kind.INVENTORY:
        from jobs.archive.inventory import read_inventory

        yield from read_inventory(archive, pattern=pattern)
    elif kind_of(archive) is Kind.LIST:
        from jobs.archive.uri_list import read_list

        yield from read_list(archive, pattern=pattern)
    else:
        below = len(archive) + 1
        yield from (_batch(page, below=below, pattern=pattern) for page in list_pages(archive) if page)


def _batch(page: Sequence[ObjectInfo], *, below: int, pattern: re.Pattern[str]) -> pa.RecordBatch:
    columns = {
        "uri": [info.uri for info in page],
        "etag": [info.etag or None for info in page],
        "size_bytes": [info.size_bytes for info in page],
        "last_modified": [info.last_modified for info in page],
    }
    named = named_by_key([info.uri[below:] for info in page], pattern)
    return pa.record_batch(columns | named, schema=LISTED)
