"""Parts of a photo: boxes in pixels as stored in its file, clipped to it and turned upright with it."""

from __future__ import annotations

from torch import Tensor

from model.pictures.errors import ImageError

Box = tuple[int, int, int, int]
"""x and y of the upper left corner, width and height, in pixels of the photo as stored, before EXIF turns it."""

MIN_INSIDE = 0.5
"""Share of a box's area that must lie in the photo: less is a box of another photo, or of another resolution."""

UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}
"""EXIF orientation -> (swap rows and columns first, then mirror these axes of (H, W)), to stand upright."""


def cut_box(upright: Tensor, box: Box, *, orientation: int) -> Tensor:
    """Cuts a box out of a photo that stands upright; what lies outside the photo is clipped.

    Args:
        upright: (H, W, 3).
        box: as stored.
        orientation: by which the photo was turned, EXIF's 1 to 8.

    Returns:
        A view of ``upright``, at least one pixel.

    Raises:
        ImageError: less than `MIN_INSIDE` of the box lies in the photo.
    """
    swap, mirrored = UPRIGHT.get(orientation, (False, ()))
    rows, columns = upright.shape[:2]
    width, height = (rows, columns) if swap else (columns, rows)
    x, y, wide, high = clip_box(box, width=width, height=height)
    if swap:
        x, y, wide, high = y, x, high, wide
    left = columns - x - wide if 1 in mirrored else x
    top = rows - y - high if 0 in mirrored else y
    return upright[top : top + high, left : left + wide]


def clip_box(box: Box, *, width: int, height: int) -> Box:
    """Clips a box to a photo of ``width`` x ``height`` pixels. Raises ImageError where too little of it is left."""
    x, y, wide, high = box
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + wide, width), min(y + high, height)
    inside = max(right - left, 0) * max(bottom - top, 0)
    if inside < max(MIN_INSIDE * wide * high, 1):
        raise ImageError(
            "box_outside",
            f"{inside / (wide * high):.0%} of the box {x},{y},{wide},{high} lies in the photo of {width} x {height} "
            f"pixels, needed {MIN_INSIDE:.0%}: boxes are x,y,width,height in pixels of the photo as stored",
        )
    return left, top, right - left, bottom - top
