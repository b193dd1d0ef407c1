"""Small pictures of the photos that a page shows, decoded as scoring decodes: in a process that is held to limits."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from jobs.decoding.photos import decode_rows
from jobs.tables.boxes import parse_box
from jobs.tables.manifest import make_manifest

_QUALITY = 82
_ANY = "photo"
"""Category of all photos shown, so that none is left out for want of a detector."""
_DARK, _LIGHT = (20, 20, 20), (255, 214, 0)


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
    width, height = row.get("width") or side_px, row.get("height") or side_px
    if row.get("box"):
        _, _, width, height = parse_box(row["box"])
    longer = max(width, height)
    size = (max(1, round(side_px * width / longer)), max(1, round(side_px * height / longer)))
    shown = image.resize(size, Image.Resampling.BILINEAR)
    if row.get("peak_box"):
        mark_place(shown, row)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def mark_place(image: Image.Image, row: Mapping[str, Any]) -> None:
    """Frames the region that deviates most, light on dark so that it shows on any photo, and dots the peak."""
    left, top, width, height = (float(share) for share in row["peak_box"].split(","))
    wide, high = image.size
    frame = (left * wide, top * high, (left + width) * wide - 1, (top + height) * high - 1)
    x, y = row["peak_x"] * wide, row["peak_y"] * high
    draw = ImageDraw.Draw(image)
    for colour, line_px, radius_px in ((_DARK, 3, 4), (_LIGHT, 1, 2)):
        draw.rectangle(frame, outline=colour, width=line_px)
        draw.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=colour)
