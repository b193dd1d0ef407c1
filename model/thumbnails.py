"""Small grey copies of photos, to compare many of them by; free of torch and scipy, for processes that decode."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

THUMBNAIL_SIDE = 64
"""Side in pixels."""


def make_thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """Averages a photo, uint8 (3, H, W), over areas and channels to float16 (64, 64) in 0..255."""
    rows, columns = (_build_area_weights(side) for side in pixels.shape[1:])
    grey = pixels.mean(axis=0, dtype=np.float32)
    return np.asarray(rows @ grey @ columns.T, np.float16)


def _build_area_weights(side_px: int) -> npt.NDArray[np.float32]:
    """Returns (64, S): the share of each of S pixels in each of 64 equal stretches."""
    edges = np.linspace(0, side_px, THUMBNAIL_SIDE + 1)
    first, pixel = edges[:-1, None], np.arange(side_px)[None]
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(first, pixel)
    return np.asarray(np.clip(covered, 0, None) * THUMBNAIL_SIDE / side_px, np.float32)
