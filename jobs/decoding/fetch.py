"""Ray Data stage FetchDecode: MANIFEST rows -> pixels. Whatever happens to one object, its row goes on with a reason.

Kept apart from the scoring stage, and free of torch: a Ray worker that runs it starts a process that decodes.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.decoding.decoder import (
    DEFAULT_LIMITS,
    DecodedPart,
    DecodeLimits,
    UndecodedError,
    share_decoder,
)
from jobs.decoding.outcomes import Outcome, explain_undecoded, explain_unread
from jobs.decoding.pixels import PixelFile
from jobs.decoding.reading import MAX_OBJECT_BYTES, FetchedPhoto, find_size, is_replaced, read_whole
from jobs.decoding.turns import Turns
from jobs.errors import CredentialsError, StorageError, TooLargeError
from jobs.tables.boxes import parse_box
from jobs.tables.schema import MANIFEST, SCORES, Status, format_reason
from model.pictures.rules import DEFAULT_RULES, WHOLE, PixelRules, Tiles

DECODED = MANIFEST.append(pa.field("status", pa.string())).append(pa.field("error", pa.string()))
DECODED = DECODED.append(pa.field("pixels", pa.large_binary()))
FOUND = pa.schema([SCORES.field(name) for name in ("width", "height", "fetched_at")])
"""What fetching finds out about a photo, null where it was not fetched, or not decoded."""
DECODED = pa.schema([*DECODED, *FOUND])
"""FetchDecode's output, beside whatever other columns its input has.

``pixels`` is uint8 (3, H, W) in C order, null together with a status that is final.
"""

DECODE_BATCH_PHOTOS = 32
"""Rows that the stage gets at a time."""
Measure = Callable[[Mapping[str, float]], None]
MIN_TELLING_BATCH = 16
"""Photos of one batch that, all unreached, say that storage is away rather than that these objects are odd."""


@dataclass(frozen=True)
class _Batch:
    """One batch under way: its turns, where its pixels go, and the photo that is kept after it."""

    turns: Turns
    pixels: PixelFile
    kept_uri: str | None


class FetchDecode:
    """MANIFEST rows to DECODED rows: concurrent GETs, decoding while later GETs are under way.

    Rows of one photo, which differ in their boxes, share a GET and a decoding. The bytes of a batch's last photo, if it
    has boxes, are kept for the next batch, which may begin with more of them.

    Args:
        image_sizes: category -> side in pixels of its detector's input, which a tile of a photo has, see ``rules``;
            photos of other categories are not fetched.
        max_pixels: largest photo decoded.
        concurrency: GETs under way at once.
        limits: time and memory that decoding one photo may take.
        decoders: processes that decode, as many photos at once.
        rules: category -> how its detector sees photos; others have the default.
        measure: told of fetched bytes and of seconds, after each batch.
    """

    def __init__(
        self,
        *,
        image_sizes: Mapping[str, int],
        max_pixels: int,
        concurrency: int,
        limits: DecodeLimits = DEFAULT_LIMITS,
        decoders: int = 1,
        measure: Measure | None = None,
        rules: Mapping[str, PixelRules] | None = None,
    ) -> None:
        """Keeps the arguments; nothing is opened yet."""
        self._image_sizes = dict(image_sizes)
        self._max_pixels = max_pixels
        self._concurrency = concurrency
        self._limits = limits
        self._decoders = decoders
        self._measure = measure
        self._rules = dict(rules or {})
        self._kept: FetchedPhoto | None = None

    def start(self) -> None:
        """Starts the first process that decodes, if there is none: its imports take 2 s, which nobody need wait for."""
        share_decoder(self._limits).start()

    def make_turns(self) -> Turns:
        """Makes the turns that batches of one event loop share."""
        return Turns(self._concurrency, [share_decoder(self._limits, number) for number in range(self._decoders)])

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Fetches and decodes one batch, in order."""
        return asyncio.run(self.decode_batch(rows, self.make_turns()))

    async def decode_batch(self, rows: pa.Table, turns: Turns) -> pa.Table:
        """Fetches and decodes one batch, in order, beside others of the same turns."""
        self.start()
        spent = defaultdict[str, float](float)
        asked = rows.select(["image_uri", "image_etag", "image_bytes", "category", "box"]).to_pylist()
        with PixelFile([self._find_shape(row["category"]) for row in asked]) as pixels:
            async with turns.boxes if any(row["box"] for row in asked) else nullcontext():
                outcomes = await self._fetch_all(asked, pixels, turns, spent)
            is_decoded = [status is None for status, _ in outcomes]
            decoded = pixels.to_arrow(is_decoded)
        check_storage_answers([row["image_uri"] for row in asked], outcomes)
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
        self, rows: Sequence[dict[str, Any]], pixels: PixelFile, turns: Turns, spent: dict[str, float]
    ) -> list[Outcome]:
        kept_uri = rows[-1]["image_uri"] if rows and rows[-1]["box"] else None
        batch = _Batch(turns, pixels, kept_uri)
        outcomes: dict[int, Outcome] = {}
        photos: dict[tuple[object, ...], dict[int, DecodedPart]] = {}
        for number, row in enumerate(rows):
            part = self._plan_part(row, int(pixels.starts[number]))
            if isinstance(part, DecodedPart):
                photo = row["image_uri"], row["image_etag"], row["image_bytes"]
                photos.setdefault(photo, {})[number] = part
            else:
                outcomes[number] = part

        async def one(parts: dict[int, DecodedPart]) -> None:
            found = await self._fetch_one([rows[number] for number in parts], list(parts.values()), batch, spent)
            outcomes.update(zip(parts, found, strict=True))

        await asyncio.gather(*map(one, photos.values()))
        if self._kept is not None and self._kept.uri != kept_uri:
            self._kept = None
        return [outcomes[number] for number in range(len(rows))]

    def _find_shape(self, category: Any) -> tuple[int, int] | None:
        """Returns height and width of the pixels of a category's photos; None where it has no detector.

        A manifest without categories has None for one, and its photos a detector like others.
        """
        size = self._image_sizes.get(category)
        return None if size is None else self._rules.get(category, DEFAULT_RULES).tiles.measure_photo(size)

    def _plan_part(self, row: Mapping[str, Any], at: int) -> DecodedPart | Outcome:
        """Returns what a row wants of its photo; or its outcome, where it wants nothing that can be had."""
        category, box = row["category"], row["box"]
        size = self._image_sizes.get(category)
        if size is None:
            detail = "the key does not match --key-pattern" if category is None else "no detector for this category"
            return Status.NO_DETECTOR, format_reason("no_detector", detail)
        try:
            rules = self._rules.get(category, DEFAULT_RULES)
            return DecodedPart(size, at, rules, None if box is None else parse_box(box))
        except ValueError as error:
            return Status.UNREADABLE, format_reason("bad_box", str(error))

    async def _fetch_one(
        self, rows: list[dict[str, Any]], parts: Sequence[DecodedPart], batch: _Batch, spent: dict[str, float]
    ) -> list[Outcome]:
        """Returns the outcomes of the rows of one photo."""
        try:
            if self._kept is not None and self._kept.uri == rows[0]["image_uri"]:
                return await self._decode(self._kept, rows, parts, batch, spent)
            max_bytes = await find_size(rows[0], batch.turns.fetching)
            while True:
                try:
                    async with batch.turns.budget.hold(max_bytes):
                        return await self._read_and_decode(rows, parts, batch, spent, max_bytes=max_bytes)
                except TooLargeError as error:  # larger than listed: once more, with room for what it has
                    if error.size_bytes > MAX_OBJECT_BYTES:
                        raise
                    max_bytes = error.size_bytes
        except UndecodedError as error:
            return [explain_undecoded(error, rows[0]["image_uri"])] * len(rows)
        except CredentialsError:
            raise  # true of every photo: rows that say so would help nobody
        except StorageError as error:
            return [explain_unread(error)] * len(rows)

    async def _read_and_decode(
        self,
        rows: list[dict[str, Any]],
        parts: Sequence[DecodedPart],
        batch: _Batch,
        spent: dict[str, float],
        *,
        max_bytes: int,
    ) -> list[Outcome]:
        async with batch.turns.fetching:
            began = time.perf_counter()
            fetched = await read_whole(rows[0], max_bytes=max_bytes)
            spent["fetch_s"] += time.perf_counter() - began
            spent["fetched_bytes"] += len(fetched.data)
        return await self._decode(fetched, rows, parts, batch, spent)

    async def _decode(
        self,
        fetched: FetchedPhoto,
        rows: list[dict[str, Any]],
        parts: Sequence[DecodedPart],
        batch: _Batch,
        spent: dict[str, float],
    ) -> list[Outcome]:
        if fetched.uri == batch.kept_uri:
            self._kept = fetched
        for row in rows:
            row["fetched_at"] = fetched.begun_at  # replaced while it is read counts as replaced afterwards
            is_changed = is_replaced(row, fetched.etag, len(fetched.data))
        if is_changed:
            reason = format_reason("changed", "replaced after it was listed; the next run scores it")
            return [(Status.MISSING, reason)] * len(rows)
        async with batch.turns.take_decoder() as decoder:
            began = time.perf_counter()
            (width, height), problems = await decoder.decode(
                fetched.data, parts, max_pixels=self._max_pixels, into=batch.pixels.descriptor
            )
            spent["decode_s"] += time.perf_counter() - began
        for row in rows:
            row["width"], row["height"] = width, height
        uri = fetched.uri
        return [(None, None) if problem is None else explain_undecoded(problem, uri) for problem in problems]


def check_storage_answers(photos: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Ends the run where storage answers nothing at all: each photo would wait for minutes, a million for months.

    Raises:
        StorageError: none of a batch's photos could be reached, for as long as clients try.
    """
    unreached = [error for _, error in outcomes if error is not None and error.startswith("storage:")]
    if len(unreached) == len(outcomes) and len(set(photos)) >= MIN_TELLING_BATCH:
        raise StorageError(f"none of {len(set(photos))} photos in a row could be fetched, the first: {unreached[0]}")


def stack_images(
    pixels: pa.ChunkedArray, *, size: int, rows: Sequence[int] | None = None, tiles: Tiles = WHOLE
) -> np.ndarray:
    """Stacks the ``pixels`` column of decoded rows into one uint8 array (N, 3, H, W), (N, 3, size, size) without tiles.

    Args:
        pixels: the column.
        size: side in pixels of a tile.
        rows: the N rows that are wanted, copied once, not taken out first; None for all.
        tiles: of each photo.
    """
    wanted = range(len(pixels)) if rows is None else rows
    images = np.empty((len(wanted), 3, *tiles.measure_photo(size)), np.uint8)
    for number, row in enumerate(wanted):
        images[number] = np.frombuffer(pixels[row].as_buffer(), np.uint8).reshape(images.shape[1:])
    return images
