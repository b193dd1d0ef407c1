"""Rotated views for a compiled backbone: one number per pixel, so that a view is one gather and not three."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.network.rotation import Padding, compute_source_index

BYTES_PER_PIXEL = 4
"""Red, green, blue, and one that nothing reads: a pixel is an int32 then."""


def gather_views(images: Tensor, angles: Sequence[float], *, padding: Padding) -> Tensor:
    """Rotates every photo by every angle, pixel for pixel as `model.network.rotation.rotate_views` does.

    Args:
        images: uint8 (B, 3, S, S) RGB on the CPU.
        angles: T degrees.
        padding: what shows where nothing was rotated in.

    Returns:
        uint8 (B * T, S, S, 4), photo by photo; the last channel is 0.
    """
    side = images.shape[-1]
    pixels = pack_pixels(images)
    views = torch.empty(len(images), len(angles), side * side, dtype=torch.int32)
    for view, angle in enumerate(angles):
        index = compute_source_index(side, angle, padding)
        for photo, turned in zip(pixels, views[:, view], strict=True):
            torch.index_select(photo, 0, index, out=turned)
    return views.view(torch.uint8).view(-1, side, side, BYTES_PER_PIXEL)


def pack_pixels(images: Tensor) -> Tensor:
    """Packs photos, uint8 (B, 3, S, S), into int32 (B, S * S + 1): their pixels in a row, then a black one."""
    packed = images.new_zeros(len(images), images.shape[-1] ** 2 + 1, BYTES_PER_PIXEL)
    for colour in range(3):  # one by one, each is a run of bytes; all at once, torch takes three times as long
        packed[:, :-1, colour] = images[:, colour].flatten(1)
    return packed.view(torch.int32).squeeze(-1)
