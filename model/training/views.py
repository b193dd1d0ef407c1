"""Rotated views of the training photos: which ones an epoch takes, and their pooled features.

Where the extractor is frozen, the features of a view never change. Angles uniform in 0-360 degrees (DifferNet, arXiv
2008.12577) are never the same twice, so their features are computed as they are needed. The scoring angles are few:
the features of all of them are computed once, each worker computing its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.network.rotation import list_scoring_angles, rotate
from model.training.photos import Photos, tile_photos
from model.training.workers import compute_together

_VIEWS_PER_CHUNK = 64  # views in the convolutions at once: bounds the memory of a step whatever its batch size


class TrainingViews(Protocol):
    """N photos, each with views to draw from."""

    def draw_scaling_sample(self, rng: np.random.Generator) -> Tensor:
        """Draws pooled features (M, D), unscaled, of views of every photo, to fit the feature scaling to."""

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draws the views (N, train_views) of one epoch, on the CPU; `pool` knows what a value means."""

    def pool(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Pools features (B * T, D), unscaled, photo by photo, of photos (B,) in their drawn views (B, T)."""


@dataclass(frozen=True)
class ComputedViews:
    """Rotations as ``config.train_angles`` says, features computed anew; a drawn view is its angle in degrees."""

    detector: AttentDifferNet
    photos: Photos

    def draw_scaling_sample(self, rng: np.random.Generator) -> Tensor:
        """Pools features (N * train_views, D) of one draw."""
        return self.pool(torch.arange(len(self.photos)), self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draws angles (N, train_views) in [0, 360)."""
        config = self.detector.config
        if config.train_angles == "uniform":
            return torch.from_numpy(rng.uniform(0, 360, size=(len(self.photos), config.train_views)))
        angles = torch.tensor(list_scoring_angles(config.views), dtype=torch.float64)
        return angles[draw_without_repeats(rng, len(self.photos), config.views, config.train_views)]

    def rotate_photos(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Makes the views themselves, uint8 (B * T, 3, S, S) on the detector's device, photo by photo."""
        device = self.detector.image_mean.device
        images = self.photos.take(photos).to(device)
        repeated = images.repeat_interleave(drawn.shape[1], dim=0)
        return rotate(repeated, drawn.flatten(), padding=self.detector.config.rotation_padding)

    @torch.no_grad()
    def pool(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Rotates and convolves, at most 64 views at a time or one photo."""
        photos_per_chunk = max(1, _VIEWS_PER_CHUNK // drawn.shape[1])
        chunks = zip(torch.split(photos, photos_per_chunk), torch.split(drawn, photos_per_chunk), strict=True)
        return torch.cat([self.detector.pool_features(self.rotate_photos(some, angles)) for some, angles in chunks])


@dataclass(frozen=True)
class CachedViews:
    """The scoring angles, features computed beforehand; a drawn view is the number of its angle."""

    features: Tensor  # (N, views, D), unscaled
    train_views: int

    def draw_scaling_sample(self, rng: np.random.Generator) -> Tensor:
        """Returns the features (N * views, D) of every view; nothing is left to chance."""
        return self.features.flatten(0, 1)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draws numbers of views (N, train_views), none twice for one photo."""
        count, views, _ = self.features.shape
        return draw_without_repeats(rng, count, views, self.train_views)

    def pool(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Looks the features up."""
        device = self.features.device
        return self.features[photos.to(device)[:, None], drawn.to(device)].flatten(0, 1)


def choose_views(detector: AttentDifferNet, photos: Photos) -> TrainingViews:
    """Builds the views of photos whose features attention changes no more, as ``config.train_angles`` asks for.

    Args:
        detector: features lie on the device of its flow.
        photos: N photos. With ``scoring`` angles N * views * D * 4 bytes of features are kept.
    """
    if detector.config.train_angles == "uniform":
        return ComputedViews(detector, photos)
    angles = list_scoring_angles(detector.config.views)
    return CachedViews(compute_view_features(detector, photos, angles=angles), detector.config.train_views)


def compute_view_features(detector: AttentDifferNet, photos: Photos, *, angles: Sequence[float]) -> Tensor:
    """Computes pooled features (N, T, D), unscaled, of every photo at T angles in degrees, each worker its share.

    With tiles the second axis has the views of all tiles of a photo, tile by tile.
    """
    tiles = tile_photos(photos, detector.config)
    views, turns = ComputedViews(detector, tiles), torch.tensor(angles, dtype=torch.float64)

    def features(some: Tensor) -> Tensor:
        if len(some) == 0:
            return torch.empty(0, len(turns), detector.feature_dim, device=detector.image_mean.device)
        return views.pool(some, turns.expand(len(some), -1)).view(len(some), len(turns), -1)

    computed = compute_together(features, len(tiles))
    return computed.reshape(len(photos), len(tiles) // max(1, len(photos)) * len(turns), computed.shape[-1])


def draw_without_repeats(rng: np.random.Generator, count: int, views: int, drawn: int) -> Tensor:
    """Draws ``drawn`` of 0..views - 1 for each of ``count`` photos, (count, drawn), none twice for one photo."""
    return torch.from_numpy(rng.random((count, views)).argsort(axis=1)[:, :drawn].copy())
