"""Reading a photo's bytes whole, with its size known before they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs import storage
from jobs.errors import DeniedError, RefusedError, StorageError, TooLargeError

MAX_OBJECT_BYTES = 2**30
"""Largest object fetched. A photo of the 160 million pixels allowed has 0.5 GB uncompressed."""
MIN_EXPECTED_BYTES = 2**16
"""Room taken for a photo at least, so that one slightly larger than listed is not asked for twice."""
RETRY_PAUSES_S = (0.5, 2.0)
"""Before an object that came short is read again."""


@dataclass(frozen=True)
class FetchedPhoto:
    """The bytes of a photo.

    Attributes:
        uri: of the object.
        data: its bytes.
        etag: its entity tag, empty where the store has none.
        begun_at: when they were asked for.
    """

    uri: str
    data: bytes | memoryview
    etag: str
    begun_at: datetime


async def find_size(row: dict[str, Any], fetching: asyncio.Semaphore) -> int:
    """Returns the size in bytes that a photo is expected to have; asks the storage where the list does not say.

    Raises:
        TooLargeError: it has more than MAX_OBJECT_BYTES.
        StorageError: it cannot be asked.
    """
    size_bytes = row["image_bytes"]
    if size_bytes is None:
        async with fetching:
            try:
                size_bytes = await storage.read_size_async(row["image_uri"])
            except (DeniedError, RefusedError):
                return MIN_EXPECTED_BYTES  # a refused HEAD has no reason; that of the GET has, or the photo comes
    if size_bytes > MAX_OBJECT_BYTES:
        raise TooLargeError(row["image_uri"], size_bytes=size_bytes, max_bytes=MAX_OBJECT_BYTES)
    return max(int(size_bytes), MIN_EXPECTED_BYTES)


async def read_whole(row: Mapping[str, Any], *, max_bytes: int) -> FetchedPhoto:
    """Reads an object; again where the answer was short and, as a proxy on the way may do, did not say so.

    Raises:
        StorageError: it came short every time, or could not be read.
    """
    begun_at = datetime.now(UTC)
    for pause_s in (*RETRY_PAUSES_S, None):
        data, etag = await storage.read_async(row["image_uri"], max_bytes=max_bytes)
        is_short = etag == row["image_etag"] and row["image_bytes"] is not None and len(data) < row["image_bytes"]
        if not is_short:
            break
        if pause_s is None:
            raise StorageError(f"{row['image_uri']} came short: {len(data)} of {row['image_bytes']} bytes, three times")
        await asyncio.sleep(pause_s)
    return FetchedPhoto(row["image_uri"], data, etag, begun_at)


def is_replaced(row: dict[str, Any], etag: str, size_bytes: int) -> bool:
    """Tells whether these are other bytes than those listed; notes in ``row`` what the listing did not know."""
    is_changed = bool(etag and row["image_etag"] and etag != row["image_etag"])
    row["image_etag"] = row["image_etag"] or etag or None
    row["image_bytes"] = size_bytes if row["image_bytes"] is None else row["image_bytes"]
    return is_changed
