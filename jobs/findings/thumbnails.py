"""Small pictures of the photos that a page shows, decoded as scoring decodes: in a process that is held to limits."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jobs.decoding.photos import decode_rows
from jobs.explanation.drawing import mark_photo, read_place
from jobs.explanation.photos import restore_proportions
from jobs.tables.boxes import parse_box
from jobs.tables.manifest import make_manifest

_QUALITY = 82
_ANY = "photo"
"""Category of all photos shown, so that none is left out for want of a detector."""


def make_thumbnails(rows: Sequence[Mapping[str, Any]], *, side_px: int, max_pixels: int) -> list[tuple[str, str]]:
    """Fetches photos and makes a JPEG of each, as a data URI.

    Args:
        rows: image_uri, image_etag, box, width and height of each photo; the last three may be None.
        side_px: longer side in pixels.
        max_pixels: largest photo that is decoded.

    Returns:
        For each row the data URI and "", or "" and why there is none.
    """
    if not rows:
        return []
    decoded, reasons = decode_rows(make_manifest(rows, category=_ANY), size=side_px, max_pixels=max_pixels)
    columns = (decoded[name].to_pylist() for name in ("image_id", "pixels"))
    pixels = dict(zip(*columns, strict=True))
    return [
        (encode_jpeg(pixels[number], row, side_px=side_px), "")
        if number in pixels
        else ("", reasons.get(row["image_uri"], "not decoded"))
        for number, row in enumerate(rows)
    ]


def encode_jpeg(pixels: bytes, row: Mapping[str, Any], *, side_px: int) -> str:
    """Returns square pixels, uint8 (3, S, S), as a JPEG in a data URI, with the proportions of the photo or box.

    Where the row says where the photo deviates most, a frame and a dot mark it.
    """
    image = Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(3, side_px, side_px).transpose(1, 2, 0))
    width, height = row.get("width"), row.get("height")
    if row.get("box"):
        _, _, width, height = parse_box(row["box"])
    shown = mark_photo(restore_proportions(image, width=width, height=height), read_place(row))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=_QUALITY)
    return embed_jpeg(buffer.getvalue())


def embed_jpeg(data: bytes) -> str:
    """Returns a JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
