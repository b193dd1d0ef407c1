"""The place of a deviation: the peak of a map, the region around it, and how much of the deviation lies there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_REGION_LEVEL = 0.5
"""A region reaches as far as the map is above this share of the way from its median to its peak."""


@dataclass(frozen=True)
class Place:
    """Where a photo deviates most; lengths are shares of the photo's width and height, from its upper left corner.

    Attributes:
        x: of the peak, in (0, 1).
        y: of the peak, in (0, 1).
        box: x, y, width and height of the region around the peak.
        share: of what deviates in the photo, how much lies in the region, in (0, 1]; 1 is one compact spot.
    """

    x: float
    y: float
    box: tuple[float, float, float, float]
    share: float


def find_places(maps: npt.NDArray[np.float32]) -> list[Place | None]:
    """Finds the place in each map (N, h, w); None where one is not finite."""
    return [find_place(one) if np.isfinite(one).all() else None for one in maps]


def find_place(values: npt.NDArray[np.float32]) -> Place:
    """Finds the place in one map of finite deviations (h, w).

    The region is all that hangs together with the peak above half of its height, measured from the map's median.
    """
    height, width = values.shape
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    excess = np.maximum(values - np.median(values), 0)
    labels, _ = ndimage.label(excess >= _REGION_LEVEL * excess.max())
    region = labels == labels[row, column]
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    top, left = int(rows[0]), int(columns[0])
    box = (left / width, top / height, (int(columns[-1]) + 1 - left) / width, (int(rows[-1]) + 1 - top) / height)
    total = float(excess.sum())
    share = float(excess[region].sum()) / total if total > 0 else 1.0
    return Place((int(column) + 0.5) / width, (int(row) + 0.5) / height, box, share)
