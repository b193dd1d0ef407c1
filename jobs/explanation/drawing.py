"""Draws maps over photos, and marks the place where one deviates most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from model.localization.places import Place

_DARK, _LIGHT = (20, 20, 20), (255, 214, 0)
_OPACITY = 0.6
"""Of the colour at the peak; where the map is 0 the photo is as it was."""
_COLOURS = np.array(
    [(48, 18, 59), (70, 134, 251), (27, 229, 181), (164, 252, 60), (250, 186, 57), (227, 68, 10), (122, 4, 3)]
)
"""From 0 to 1, in even steps: the colours of Google's Turbo, from blue over green to red."""


def draw_overlay(photo: Image.Image, values: npt.NDArray[np.float32]) -> Image.Image:
    """Draws a map (h, w) of values in 0..1 over a photo, which stays as it is; the higher, the more opaque."""
    grid = Image.fromarray(np.asarray(values, np.float32))
    fine = np.asarray(grid.resize(photo.size, Image.Resampling.BICUBIC)).clip(0, 1)
    steps = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(fine, steps, channel) for channel in _COLOURS.T], axis=-1)
    opacity = (_OPACITY * fine)[..., None]
    mixed = (1 - opacity) * np.asarray(photo.convert("RGB")) + opacity * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def mark_place(image: Image.Image, place: Place) -> None:
    """Frames the region that deviates most, light on dark so that it shows on any photo, and dots the peak."""
    (left, top, width, height), (wide, high) = place.box, image.size
    corner = left * wide, top * high
    # Of a photo a pixel wide or high, as a line sensor's may be, the last pixel of a region lies before its first.
    frame = (*corner, max((left + width) * wide - 1, corner[0]), max((top + height) * high - 1, corner[1]))
    draw = ImageDraw.Draw(image)
    for colour, line_px, radius_px in ((_DARK, 3, 4), (_LIGHT, 1, 2)):
        draw.rectangle(frame, outline=colour, width=line_px)
        across, down = place.x * wide, place.y * high
        spot = (across - radius_px, down - radius_px, across + radius_px, down + radius_px)
        draw.ellipse(spot, fill=colour)


def mark_photo(photo: Image.Image, place: Place | None) -> Image.Image:
    """Returns a copy of a photo with its place marked, if it has one."""
    marked = photo.copy()
    if place is not None:
        mark_place(marked, place)
    return marked


def read_place(row: Mapping[str, Any]) -> Place | None:
    """Returns the place that a SCORES row speaks of, if it has one."""
    if not row.get("peak_box"):
        return None
    left, top, width, height = (float(share) for share in row["peak_box"].split(","))
    return Place(row["peak_x"], row["peak_y"], (left, top, width, height), 0.0)
