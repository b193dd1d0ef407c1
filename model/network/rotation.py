"""Rotated views of decoded photos, pixel for pixel as DifferNet's (arXiv 2008.12577), made on the device that scores.

A fixed angle is one gather with a cached index map: a view costs less than a hundredth of its convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["black", "reflect"]


def list_scoring_angles(views: int) -> tuple[float, ...]:
    """Returns ``views`` >= 1 angles in degrees, evenly spread over the circle and starting at 0.

    Raises:
        ValueError: fewer.
    """
    if views < 1:
        raise ValueError(f"a photo needs at least 1 view to be scored, got {views}")
    return tuple(view * 360 / views for view in range(views))


def rotate(images: Tensor, angles: Tensor, *, padding: Padding = "black") -> Tensor:
    """Rotates every image by its own angle, pixel for pixel as Pillow's ``Image.rotate`` does (nearest, no expansion).

    Args:
        images: uint8 (B, 3, S, S), on any device.
        angles: (B,) degrees, counter-clockwise about the centre.
        padding: what shows where nothing was rotated in: black, or the image mirrored at its edges.

    Returns:
        uint8 (B, 3, S, S).

    Raises:
        ValueError: not one angle per image.
    """
    if angles.shape != images.shape[:1]:
        raise ValueError(f"rotate needs one angle per image, got {tuple(angles.shape)} for {tuple(images.shape)}")
    pixels, size = append_black_pixel(images), images.shape[-1]
    turned = [rotate_pixels(pixels[i : i + 1], size, angle, padding) for i, angle in enumerate(angles.tolist())]
    return torch.cat(turned) if turned else images.clone()


def rotate_views(images: Tensor, angles: Sequence[float], *, padding: Padding = "black") -> Tensor:
    """Rotates every image by every angle, as :func:`rotate` does.

    Args:
        images: uint8 (B, 3, S, S), on any device.
        angles: T degrees, see :func:`list_scoring_angles`.
        padding: as in :func:`rotate`.

    Returns:
        uint8 (B*T, 3, S, S), image-major: all views of image 0 come first.
    """
    pixels, size = append_black_pixel(images), images.shape[-1]
    views = images.new_empty(len(images), len(angles), *images.shape[1:])
    for view, angle in enumerate(angles):
        views[:, view] = rotate_pixels(pixels, size, angle, padding)
    return views.flatten(0, 1)


def append_black_pixel(images: Tensor) -> Tensor:
    """Returns (B, 3, S*S + 1): the pixels in a row, then the black one that stands for everything outside."""
    return torch.cat([images.flatten(2), images.new_zeros(*images.shape[:2], 1)], dim=2)


def rotate_pixels(pixels: Tensor, size: int, angle: float, padding: Padding) -> Tensor:
    """Rotates (B, 3, S*S + 1) pixels by ``angle`` degrees to (B, 3, S, S)."""
    shape = (*pixels.shape[:2], size, size)
    quarters, rest = divmod(angle % 360.0, 90.0)
    if rest == 0:
        return torch.rot90(pixels[..., :-1].reshape(shape), int(quarters), (2, 3))
    index = _compute_oblique_index(size, angle % 360.0, padding, pixels.device).long()
    return pixels.gather(2, index.expand(*pixels.shape[:2], -1)).reshape(shape)


def compute_source_index(size: int, angle: float, padding: Padding) -> Tensor:
    """Computes int32 (size*size,): the pixel that each pixel of a rotated view shows, size*size for black."""
    quarters, rest = divmod(angle % 360.0, 90.0)
    if rest == 0:
        upright = torch.arange(size * size, dtype=torch.int32).view(size, size)
        return torch.rot90(upright, int(quarters), (0, 1)).flatten()
    return _compute_oblique_index(size, angle % 360.0, padding, torch.device("cpu"))


@lru_cache(maxsize=64)  # 64 maps of 448 x 448 are 51 MB
def _compute_oblique_index(size: int, angle: float, padding: Padding, device: torch.device) -> Tensor:
    """Computes `compute_source_index` of an angle that is no multiple of 90 degrees.

    16.16 fixed point, to the rounding of Pillow's affine_fixed (libImaging/Geometry.c); exact up to 8192 pixels a side.
    """
    turn, half = -math.radians(angle), size / 2
    cosine, sine = round(math.cos(turn), 15), round(math.sin(turn), 15)
    x_start = cosine * -half + sine * -half + half + 0.5 * cosine + 0.5 * sine
    y_start = -sine * -half + cosine * -half + half - 0.5 * sine + 0.5 * cosine
    column = torch.arange(size, dtype=torch.int32, device=device)
    row = column.unsqueeze(1)
    x = (to_fixed_point(x_start) + to_fixed_point(cosine) * column + to_fixed_point(sine) * row) >> 16
    y = (to_fixed_point(y_start) + to_fixed_point(-sine) * column + to_fixed_point(cosine) * row) >> 16
    if padding == "reflect":
        return (mirror_positions(y, size) * size + mirror_positions(x, size)).flatten()
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    return torch.where(inside, y * size + x, size * size).flatten()


def mirror_positions(position: Tensor, size: int) -> Tensor:
    """Mirrors positions beyond an edge at it, the edge pixel twice: -1 is 0, ``size`` is ``size`` - 1."""
    wrapped = position.remainder(2 * size)
    return torch.minimum(wrapped, 2 * size - 1 - wrapped)


def to_fixed_point(value: float) -> int:
    """Converts to 16.16 fixed point, rounded half up."""
    return math.floor(value * 65536 + 0.5)
