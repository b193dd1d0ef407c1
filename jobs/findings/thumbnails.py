"""Small pictures of the photos that a page shows, decoded as scoring decodes: in a process that is held to limits."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.decoding.photos import decode_rows
from jobs.explanation.drawing import mark_photo, read_place
from jobs.explanation.photos import show_photo
from jobs.tables.manifest import make_manifest
from model.pictures.rules import DEFAULT_RULES, PixelRules

_QUALITY = 82
_IN_PROPORTION = PixelRules(resize="letterbox")
_ANY = "photo"
"""Category of all photos shown, so that none is left out for want of a detector."""
MAX_DECODED_BYTES = 256_000_000
"""Decoded photos that are held at once: 578 of 384 pixels. A page may have thousands, and larger ones."""


def make_thumbnails(rows: Sequence[Mapping[str, Any]], *, side_px: int, max_pixels: int) -> list[tuple[str, str]]:
    """Fetches photos and makes a JPEG of each, as a data URI.

    Args:
        rows: image_uri, image_etag and box of each photo; the last two may be None.
        side_px: longer side in pixels.
        max_pixels: largest photo that is decoded.

    Returns:
        For each row the data URI and "", or "" and why there is none.
    """
    at_once = max(1, MAX_DECODED_BYTES // (3 * side_px**2))
    parts = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]
    return [made for part in parts for made in decode_thumbnails(part, side_px=side_px, max_pixels=max_pixels)]


def decode_thumbnails(rows: Sequence[Mapping[str, Any]], *, side_px: int, max_pixels: int) -> list[tuple[str, str]]:
    """Does what `make_thumbnails` does, with all photos decoded in memory at once."""
    manifest = make_manifest(rows, category=_ANY)
    decoded, reasons = decode_rows(manifest, size=side_px, max_pixels=max_pixels, rules=_IN_PROPORTION)
    found = {one["image_id"]: one for one in decoded.select(["image_id", "pixels", "width", "height"]).to_pylist()}
    return [
        (encode_jpeg(found[number], row, side_px=side_px), "")
        if number in found
        else ("", reasons.get(row["image_uri"], "not decoded"))
        for number, row in enumerate(rows)
    ]


def encode_jpeg(decoded: Mapping[str, Any], row: Mapping[str, Any], *, side_px: int) -> str:
    """Returns a letterboxed photo as a JPEG in a data URI, without its frame.

    Where the row says where the photo deviates most, a frame and a dot mark it.

    Args:
        decoded: pixels, uint8 (3, S, S), width and height of the photo as stored.
        row: box, and place, see `read_place`.
        side_px: S.
    """
    photo = show_photo(decoded, row, shape=(side_px, side_px), rules=DEFAULT_RULES)
    shown = mark_photo(photo, read_place(row))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=_QUALITY)
    return embed_jpeg(buffer.getvalue())


def embed_jpeg(data: bytes) -> str:
    """Returns a JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
