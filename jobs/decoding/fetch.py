"""Ray Data stage FetchDecode: MANIFEST rows -> pixels. Whatever happens to one object, its row goes on with a reason.

Kept apart from the scoring stage, and free of torch: a Ray worker that runs it starts a process that decodes.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.decoding.byte_budget import ByteBudget
from jobs.decoding.decoder import DEFAULT_LIMITS, DecodeLimits, Levels, UndecodedError, share_decoder
from jobs.decoding.outcomes import Outcome, explain_undecoded, explain_unread
from jobs.decoding.pixels import PixelFile
from jobs.errors import CredentialsError, DeniedError, RefusedError, StorageError, TooLargeError
from jobs.tables.schema import MANIFEST, SCORES, Status, format_reason

DECODED = MANIFEST.append(pa.field("status", pa.string())).append(pa.field("error", pa.string()))
DECODED = DECODED.append(pa.field("pixels", pa.large_binary()))
FOUND = pa.schema([SCORES.field(name) for name in ("width", "height", "fetched_at")])
"""What fetching finds out about a photo, null where it was not fetched, or not decoded."""
DECODED = pa.schema([*DECODED, *FOUND])
"""FetchDecode's output, beside whatever other columns its input has.

``pixels`` is uint8 (3, S, S) in C order, null together with a status that is final.
"""

Measure = Callable[[Mapping[str, float]], None]
MIN_TELLING_BATCH = 16
"""Photos of one batch that, all unreached, say that storage is away rather than that these objects are odd."""

MAX_OBJECT_BYTES = 2**30
"""Largest object fetched. A photo of the 160 million pixels allowed has 0.5 GB uncompressed."""
MAX_WAITING_BYTES = 2**28
"""Of all photos that are fetched and wait to be decoded, in one task; a larger photo waits alone."""
MIN_EXPECTED_BYTES = 2**16
"""Room taken for a photo at least, so that one slightly larger than listed is not asked for twice."""
RETRY_PAUSES_S = (0.5, 2.0)
"""Before an object that came short is read again."""


@dataclass(frozen=True)
class _Turns:
    """Whose turn it is in one batch: GETs under way, bytes that wait, and one decoding at a time."""

    fetching: asyncio.Semaphore
    budget: ByteBudget
    decoding: asyncio.Lock


class FetchDecode:
    """MANIFEST rows to DECODED rows: concurrent GETs, decoding while later GETs are under way.

    Args:
        image_sizes: category -> side in pixels of its detector's input; photos of other categories are not fetched.
        max_pixels: largest photo decoded.
        concurrency: GETs under way at once.
        limits: time and memory that decoding one photo may take.
        levels: category -> sample values that its detector shows as black and white; others as their files declare.
        measure: told of fetched bytes and of seconds, after each batch.
    """

    def __init__(
        self,
        *,
        image_sizes: Mapping[str, int],
        max_pixels: int,
        concurrency: int,
        limits: DecodeLimits = DEFAULT_LIMITS,
        measure: Measure | None = None,
        levels: Mapping[str, Levels] | None = None,
    ) -> None:
        """Keeps the arguments; nothing is opened yet."""
        self._image_sizes = dict(image_sizes)
        self._max_pixels = max_pixels
        self._concurrency = concurrency
        self._limits = limits
        self._measure = measure
        self._levels = dict(levels or {})

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Fetches and decodes one batch, in order."""
        share_decoder(self._limits).start()
        spent = defaultdict[str, float](float)
        asked = rows.select(["image_uri", "image_etag", "image_bytes", "category"]).to_pylist()
        outcomes: list[Outcome] = []
        with PixelFile([self._image_sizes.get(row["category"]) for row in asked]) as pixels:
            asyncio.run(self._fetch_all(asked, pixels, outcomes, spent))
            is_decoded = [status is None for status, _ in outcomes]
            decoded = pixels.to_arrow(is_decoded)
        check_storage_answers(outcomes)
        if self._measure is not None:
            self._measure(spent)
        for name in ("image_etag", "image_bytes"):  # a list of URIs may have left them to be found out
            found = pa.array([row[name] for row in asked], MANIFEST.field(name).type)
            rows = rows.set_column(rows.schema.get_field_index(name), name, found)
        statuses, errors = zip(*outcomes, strict=True) if outcomes else ((), ())
        outcome = (pa.array(statuses, pa.string()), pa.array(errors, pa.string()), decoded)
        for name, values in zip(("status", "error", "pixels"), outcome, strict=True):
            rows = rows.append_column(DECODED.field(name), values)
        for field in FOUND:
            rows = rows.append_column(field, pa.array([row.get(field.name) for row in asked], field.type))
        have = rows.schema
        fields = [DECODED.field(name) if name in DECODED.names else have.field(name) for name in have.names]
        return rows.cast(pa.schema(fields))

    async def _fetch_all(
        self, rows: Sequence[dict[str, Any]], pixels: PixelFile, outcomes: list[Outcome], spent: dict[str, float]
    ) -> None:
        turns = _Turns(asyncio.Semaphore(self._concurrency), ByteBudget(MAX_WAITING_BYTES), asyncio.Lock())

        async def one(row: dict[str, Any], at: int) -> Outcome:
            return await self._fetch_one(row, turns, spent, into=pixels.descriptor, at=at)

        outcomes += await asyncio.gather(*(one(row, int(at)) for row, at in zip(rows, pixels.starts, strict=False)))

    async def _fetch_one(
        self, row: dict[str, Any], turns: _Turns, spent: dict[str, float], *, into: int, at: int
    ) -> Outcome:
        if self._image_sizes.get(row["category"]) is None:
            detail = (
                "the key does not match --key-pattern" if row["category"] is None else "no detector for this category"
            )
            return Status.NO_DETECTOR, format_reason("no_detector", detail)
        try:
            max_bytes = await find_size(row, turns.fetching)
            while True:
                try:
                    async with turns.budget.hold(max_bytes):
                        return await self._read_and_decode(row, turns, spent, max_bytes=max_bytes, into=into, at=at)
                except TooLargeError as error:  # larger than listed: once more, with room for what it has
                    if error.size_bytes > MAX_OBJECT_BYTES:
                        raise
                    max_bytes = error.size_bytes
        except UndecodedError as error:
            return explain_undecoded(error, row["image_uri"])
        except CredentialsError:
            raise  # true of every photo: rows that say so would help nobody
        except StorageError as error:
            return explain_unread(error)

    async def _read_and_decode(
        self, row: dict[str, Any], turns: _Turns, spent: dict[str, float], *, max_bytes: int, into: int, at: int
    ) -> Outcome:
        async with turns.fetching:
            began, begun_at = time.perf_counter(), datetime.now(UTC)
            data, etag = await read_whole(row, max_bytes=max_bytes)
            spent["fetch_s"] += time.perf_counter() - began
            spent["fetched_bytes"] += len(data)
        row["fetched_at"] = begun_at  # a photo that is replaced while it is read counts as replaced afterwards
        if is_replaced(row, etag, len(data)):
            return Status.MISSING, format_reason("changed", "replaced after it was listed; the next run scores it")
        async with turns.decoding:
            began, size = time.perf_counter(), self._image_sizes[row["category"]]
            levels = self._levels.get(row["category"], (None, None))
            row["width"], row["height"] = await share_decoder(self._limits).decode(
                data, size=size, max_pixels=self._max_pixels, into=into, at=at, levels=levels
            )
            spent["decode_s"] += time.perf_counter() - began
        return None, None


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


async def read_whole(row: Mapping[str, Any], *, max_bytes: int) -> tuple[bytes | memoryview, str]:
    """Reads an object; again where the answer was short and, as a proxy on the way may do, did not say so."""
    for pause_s in (*RETRY_PAUSES_S, None):
        data, etag = await storage.read_async(row["image_uri"], max_bytes=max_bytes)
        is_short = etag == row["image_etag"] and row["image_bytes"] is not None and len(data) < row["image_bytes"]
        if not is_short:
            break
        if pause_s is None:
            raise StorageError(f"{row['image_uri']} came short: {len(data)} of {row['image_bytes']} bytes, three times")
        await asyncio.sleep(pause_s)
    return data, etag


def is_replaced(row: dict[str, Any], etag: str, size_bytes: int) -> bool:
    """Tells whether these are other bytes than those listed; notes in ``row`` what the listing did not know."""
    is_changed = bool(etag and row["image_etag"] and etag != row["image_etag"])
    row["image_etag"] = row["image_etag"] or etag or None
    row["image_bytes"] = size_bytes if row["image_bytes"] is None else row["image_bytes"]
    return is_changed


def check_storage_answers(outcomes: Sequence[Outcome]) -> None:
    """Ends the run where storage answers nothing at all: each photo would wait for minutes, a million for months.

    Raises:
        StorageError: none of a batch's photos could be reached, for as long as clients try.
    """
    unreached = [error for _, error in outcomes if error is not None and error.startswith("storage:")]
    if len(unreached) == len(outcomes) >= MIN_TELLING_BATCH:
        raise StorageError(f"none of {len(outcomes)} photos in a row could be fetched, the first: {unreached[0]}")


def stack_images(pixels: pa.ChunkedArray, *, size: int, rows: Sequence[int] | None = None) -> np.ndarray:
    """Stacks the ``pixels`` column of decoded rows into one uint8 array (N, 3, size, size).

    Args:
        pixels: the column.
        size: side in pixels.
        rows: the N rows that are wanted, copied once, not taken out first; None for all.
    """
    wanted = range(len(pixels)) if rows is None else rows
    images = np.empty((len(wanted), 3, size, size), np.uint8)
    for number, row in enumerate(wanted):
        images[number] = np.frombuffer(pixels[row].as_buffer(), np.uint8).reshape(3, size, size)
    return images
