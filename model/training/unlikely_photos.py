"""Which flawless photos are the least likely: a defect hidden among them would be there.

A detector's own scores of its training photos tell little, for the flow has fitted them. So each photo is scored by
what the others teach: photos are dealt into folds, and the score is the Mahalanobis distance of a photo's features from
a Gaussian (Ledoit-Wolf) of the other folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf

from model.detector import AttentDifferNet
from model.training.photos import Photos, tile_photos

FOLDS = 5
MIN_PHOTOS = 10
"""With fewer, what the others teach is too little."""
MAX_PHOTOS = 4_000
"""Photos looked at, at most."""
PHOTOS_PER_BATCH = 16


@dataclass(frozen=True)
class UnlikelyPhoto:
    """A photo that is unlike the others.

    Attributes:
        index: of the photo, as they were given.
        times_median: its held-out distance in medians of all photos' distances.
        p_value: share of the photos whose distance is at least as large, in (0, 1].
    """

    index: int
    times_median: float
    p_value: float


@torch.no_grad()
def pool_upright(
    detector: AttentDifferNet, photos: Photos, *, chosen: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Computes the pooled features (len(chosen) * T, D) of photos as they stand, one view of each of their T tiles."""
    tiles = tile_photos(photos, detector.config)
    count = detector.config.tile_grid.total
    chosen = (chosen[:, None] * count + np.arange(count)).ravel()
    parts = torch.split(torch.from_numpy(chosen), PHOTOS_PER_BATCH)
    return torch.cat([detector.pool_features(tiles.take(part)).double().cpu() for part in parts]).numpy()


def score_by_others(features: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Scores photos by their distance to those of other folds, (N,); a group is in one fold, so no twin hides a photo.

    Args:
        features: (N, D).
        groups: (N,) the group of each photo.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    scores = np.zeros(len(features))
    for number in np.unique(fold):
        inside = fold == number
        scores[inside] = LedoitWolf().fit(features[~inside]).mahalanobis(features[inside])
    return scores


def find_unlikely_photos(detector: AttentDifferNet, photos: Photos, *, count: int) -> list[UnlikelyPhoto]:
    """Finds the ``count`` photos that are least like the others, the least likely first; none where there are too few.

    Args:
        detector: its features are looked at.
        photos: N flawless ones; of more than `MAX_PHOTOS`, as many evenly spread.
        count: how many to return.
    """
    chosen = np.arange(0, len(photos), max(1, -(-len(photos) // MAX_PHOTOS)))
    groups = chosen if photos.groups is None else photos.groups[chosen]
    if len(np.unique(groups)) < MIN_PHOTOS:
        return []
    features = pool_upright(detector, photos, chosen=chosen)
    tiles = len(features) // len(chosen)
    scores = score_by_others(features, np.repeat(groups, tiles)).reshape(-1, tiles).max(1)
    ascending, median = np.sort(scores), float(np.median(scores)) or 1.0
    at_least = len(scores) - np.searchsorted(ascending, scores, side="left")
    order = np.argsort(-scores, kind="stable")[:count]
    return [UnlikelyPhoto(int(chosen[n]), float(scores[n] / median), float(at_least[n] / len(scores))) for n in order]
