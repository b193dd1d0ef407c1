"""Photos fetched to be explained: as their detector sees them, and as people do, from one GET and one decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from jobs.decoding.fetch import FetchDecode
from jobs.decoding.photos import FETCH_CONCURRENCY
from jobs.tables.boxes import parse_box
from jobs.tables.manifest import make_manifest, number_photos
from model.pictures.rules import WHOLE, PixelRules, Tiles

BATCH_PHOTOS = 8
"""Photos fetched and mapped at a time. Fewer than jobs.decoding takes for a sign that storage is away."""
_SEEN, _SHOWN = "seen", "shown"


@dataclass(frozen=True)
class ShownPhoto:
    """A photo, or the box of it that its row is about.

    Attributes:
        seen: uint8 (3, H, W), what the detector sees.
        shown: the same in the photo's proportions, for people.
    """

    seen: npt.NDArray[np.uint8]
    shown: Image.Image


def fetch_photos(
    rows: Sequence[Mapping[str, Any]], *, size: int, rules: PixelRules, shown_px: int, max_pixels: int
) -> list[ShownPhoto | str]:
    """Fetches and decodes photos in this process, by the stage that scoring has.

    Args:
        rows: image_uri and image_etag of each photo, and box where it is a part of one; an entity tag of None takes
            whatever bytes are there.
        size: side S in pixels of what the detector sees.
        rules: how photos become pixels.
        shown_px: longer side in pixels of what people see.
        max_pixels: largest photo decoded.

    Returns:
        For each row the photo, or the reason why there is none.

    Raises:
        CredentialsError: true of every photo, so it is no reason of one.
    """
    # Of a photo that its detector cuts into tiles people see the whole, unless it sees the middle of it alone.
    people = rules if rules.resize == "crop" else rules._replace(tiles=WHOLE, resize="letterbox")
    side = choose_side(people.tiles, longest_px=shown_px)
    stage = FetchDecode(
        image_sizes={_SEEN: size, _SHOWN: side},
        max_pixels=max_pixels,
        concurrency=FETCH_CONCURRENCY,
        rules={_SEEN: rules, _SHOWN: people},
    )
    twice = pa.concat_tables([make_manifest(rows, category=name) for name in (_SEEN, _SHOWN)])
    columns = ["error", "pixels", "width", "height"]
    decoded = stage(number_photos(twice)).select(columns).to_pylist()
    return [
        str(seen["error"] or shown["error"])
        if seen["pixels"] is None or shown["pixels"] is None
        else ShownPhoto(
            read_pixels(seen["pixels"], rules.tiles.measure_photo(size)),
            show_photo(shown, row, shape=people.tiles.measure_photo(side), rules=rules),
        )
        for row, seen, shown in zip(rows, decoded[: len(rows)], decoded[len(rows) :], strict=True)
    ]


def choose_side(tiles: Tiles, *, longest_px: int) -> int:
    """Chooses the side in pixels of tiles that are together about ``longest_px`` long; without tiles it is that."""
    return max(1, longest_px * longest_px // max(tiles.measure_photo(longest_px)))


def read_pixels(pixels: bytes, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Returns decoded pixels as uint8 (3, *shape), which may be written to."""
    return np.frombuffer(pixels, np.uint8).reshape(3, *shape).copy()


def show_photo(
    decoded: Mapping[str, Any], row: Mapping[str, Any], *, shape: tuple[int, int], rules: PixelRules
) -> Image.Image:
    """Returns decoded pixels as people see them; where ``rules`` stretch a photo, without the frame of a letterbox."""
    image = Image.fromarray(read_pixels(decoded["pixels"], shape).transpose(1, 2, 0))
    if rules.resize != "stretch":
        return image
    return trim_frame(image, find_stored_size(decoded, box=row.get("box")))


def find_stored_size(decoded: Mapping[str, Any], *, box: str | None) -> tuple[int, int] | None:
    """Finds width and height in pixels as stored, of a DECODED photo or what is inside it of a box; None: not known."""
    width, height = decoded["width"], decoded["height"]
    if not width or not height:
        return None
    if not box:
        return width, height
    left, top, wide, high = parse_box(box)
    return min(left + wide, width) - max(left, 0), min(top + high, height) - max(top, 0)


def trim_frame(image: Image.Image, stored: tuple[int, int] | None) -> Image.Image:
    """Cuts the black frame off a photo that was letterboxed into a square.

    A photo that EXIF turns has the proportions of the stored one or the reverse: the frame leaves out the darker part.

    Args:
        image: the square.
        stored: width and height of the photo before it was turned upright; None leaves the frame.
    """
    if stored is None:
        return image
    windows = [place_window(image.width, width, height) for width, height in (stored, stored[::-1])]
    return image.crop(max(windows, key=lambda window: int(np.asarray(image.crop(window), np.int64).sum())))


def place_window(side: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of what has the proportions of a photo in the middle of a square."""
    longer = max(width, height)
    wide, high = (max(1, round(side * length / longer)) for length in (width, height))
    left, top = (side - wide) // 2, (side - high) // 2
    return left, top, left + wide, top + high
