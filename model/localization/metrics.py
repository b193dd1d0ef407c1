"""How well maps find what is marked: the pointing game, pixel AUROC and PRO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import roc_auc_score

TOLERANCE = 15 / 224
"""Of the pointing game's second figure, as in its source (arXiv 1608.00507): 15 pixels, of photos of 224."""
FIGURES = ("pointing", "near", "auroc", "pro")
"""The fields of `Localization`, in the order of tables."""
_RESAMPLES = 2000
_SIDE = 64
_PRO_LIMIT = 0.3
_PRO_STEPS = 200

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Localization:
    """Means over photos, each in 0..1, higher is better.

    Attributes:
        pointing: share of photos whose peak lies in the mask.
        near: the same within `TOLERANCE` of it.
        auroc: of pixels inside against outside, photo by photo.
        pro: per-region overlap (arXiv 1911.02357), up to 30 % false positives over all photos.
    """

    pointing: float
    near: float
    auroc: float
    pro: float


def measure_maps(maps: Sequence[Map], masks: Sequence[Mask]) -> Localization:
    """Measures maps (h, w), of any grid, against masks (H, W) that mark at least a pixel."""
    distances = [measure_distance(one, mask) for one, mask in zip(maps, masks, strict=True)]
    pairs = [(resize(one), shrink_mask(mask)) for one, mask in zip(maps, masks, strict=True)]
    aurocs = [roc_auc_score(mask.ravel(), one.ravel()) for one, mask in pairs if mask.any() and not mask.all()]
    return Localization(
        pointing=float(np.mean([distance == 0 for distance in distances])),
        near=float(np.mean([distance <= TOLERANCE for distance in distances])),
        auroc=float(np.mean(aurocs)),
        pro=measure_pro([one for one, _ in pairs], [mask for _, mask in pairs]),
    )


def compare_pointing(
    maps: Sequence[Map], others: Sequence[Map], masks: Sequence[Mask], *, seed: int = 0
) -> tuple[float, float, float]:
    """Compares two methods on the same photos: share of peaks in the masks, the first's minus the second's.

    Args:
        maps: of the first method.
        others: of the second.
        masks: what is marked.
        seed: of the resampling.

    Returns:
        The difference, and the ends of its 95 % interval by bootstrap over photos.
    """
    hits = [
        [measure_distance(one, mask) == 0 for one, mask in zip(some, masks, strict=True)] for some in (maps, others)
    ]
    differences = np.subtract(*np.asarray(hits, np.float64))
    drawn = np.random.default_rng(seed).choice(differences, (_RESAMPLES, len(differences))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(differences.mean()), float(low), float(high)


def measure_distance(values: Map, mask: Mask) -> float:
    """Measures how far a map's peak lies from the mask, as a share of the side; 0 inside.

    A flat map peaks in the middle.
    """
    height, width = mask.shape
    peaks = np.argwhere(values == values.max())
    row, column = (peaks.mean(0) + 0.5) / values.shape if len(peaks) > 1 else (peaks[0] + 0.5) / values.shape
    if mask[min(height - 1, int(row * height)), min(width - 1, int(column * width))]:
        return 0.0
    rows, columns = np.nonzero(mask)
    return float(np.maximum(abs((rows + 0.5) / height - row), abs((columns + 0.5) / width - column)).min())


def resize(values: Map) -> Map:
    """Resizes a map to the grid that pixels are compared on, bilinearly."""
    factors = [_SIDE / length for length in values.shape]
    return np.asarray(ndimage.zoom(values, factors, order=1, mode="nearest", grid_mode=True), np.float32)


def shrink_mask(mask: Mask) -> Mask:
    """Shrinks a mask to the same grid: a cell counts where any of its pixels does, or thin cracks would be lost."""
    rows, columns = (np.arange(length) * _SIDE // length for length in mask.shape)
    small = np.zeros((_SIDE, _SIDE), bool)
    marked = np.nonzero(mask)
    small[rows[marked[0]], columns[marked[1]]] = True
    if mask.shape[0] < _SIDE or mask.shape[1] < _SIDE:
        small = mask[np.ix_(np.arange(_SIDE) * mask.shape[0] // _SIDE, np.arange(_SIDE) * mask.shape[1] // _SIDE)]
    return small


def measure_pro(maps: Sequence[Map], masks: Sequence[Mask]) -> float:
    """Measures the mean overlap of regions over thresholds, by the share of unmarked pixels above, up to 30 %."""
    outside = np.sort(np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)]))[::-1]
    rates = np.linspace(0, _PRO_LIMIT, _PRO_STEPS + 1)[1:]
    thresholds = outside[np.minimum((rates * len(outside)).astype(int), len(outside) - 1)]
    overlaps = []
    for one, mask in zip(maps, masks, strict=True):
        labels, count = ndimage.label(mask)
        for region in range(1, count + 1):
            inside = np.sort(one[labels == region])
            overlaps.append(1 - np.searchsorted(inside, thresholds, side="right") / len(inside))
    return float(np.mean(overlaps))
