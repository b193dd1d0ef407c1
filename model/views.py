"""Rotated views of the training photos: which ones an epoch takes, and their pooled features.

The backbone is frozen, so a view's features never change. Angles uniform in 0-360 degrees (DifferNet, arXiv
2008.12577) are never the same twice and their features are computed as they are needed; the scoring angles are few, and
the features of all of them are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.rotation import rotate, scoring_angles

_VIEWS_PER_CHUNK = 64  # views in the convolutions at once: bounds the memory of a step whatever its batch size


class TrainingViews(Protocol):
    """N photos, each with views to draw from."""

    def scaling_sample(self, rng: np.random.Generator) -> Tensor:
        """Pooled features (M, D), unscaled, of views of every photo, to fit the feature scaling on."""

    def draw(self, rng: np.random.Generator) -> Tensor:
        """The views (N, train_views) of one epoch, on the CPU; what a value means is the affair of ``pooled``."""

    def pooled(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Pooled features (B * T, D), unscaled, photo by photo, of photos (B,) in their drawn views (B, T)."""


@dataclass(frozen=True)
class UniformViews:
    """Rotations uniform in 0-360 degrees; a drawn view is its angle in degrees."""

    detector: AttentDifferNet
    images: Tensor  # (N, 3, S, S) uint8, on any device

    def scaling_sample(self, rng: np.random.Generator) -> Tensor:
        """Pooled features (N * train_views, D) of one draw."""
        return self.pooled(torch.arange(len(self.images)), self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Angles (N, train_views) in [0, 360)."""
        angles = rng.uniform(0, 360, size=(len(self.images), self.detector.config.train_views))
        return torch.from_numpy(angles)

    def pooled(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Rotates and convolves, at most 64 views at a time or one photo."""
        photos_per_chunk = max(1, _VIEWS_PER_CHUNK // drawn.shape[1])
        chunks = zip(torch.split(photos, photos_per_chunk), torch.split(drawn, photos_per_chunk), strict=True)
        return torch.cat([self._pooled_chunk(some_photos, angles) for some_photos, angles in chunks])

    @torch.no_grad()
    def _pooled_chunk(self, photos: Tensor, angles: Tensor) -> Tensor:
        device = next(self.detector.flow.parameters()).device
        images = self.images[photos.to(self.images.device)].to(device)
        repeated = images.repeat_interleave(angles.shape[1], dim=0)
        return self.detector.pooled_features(rotate(repeated, angles.flatten()))


@dataclass(frozen=True)
class ScoringViews:
    """The scoring angles, features computed beforehand; a drawn view is the number of its angle."""

    features: Tensor  # (N, views, D), unscaled
    train_views: int

    def scaling_sample(self, rng: np.random.Generator) -> Tensor:
        """Pooled features (N * views, D) of every view; nothing is left to chance."""
        return self.features.flatten(0, 1)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """View numbers (N, train_views), none twice for one photo."""
        count, views, _ = self.features.shape
        return torch.from_numpy(rng.random((count, views)).argsort(axis=1)[:, : self.train_views].copy())

    def pooled(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Looks the features up."""
        device = self.features.device
        return self.features[photos.to(device)[:, None], drawn.to(device)].flatten(0, 1)


def training_views(detector: AttentDifferNet, images: Tensor) -> TrainingViews:
    """The views that ``detector.config.train_angles`` asks for.

    Args:
        detector: its backbone must not change any more; features lie on the device of its flow.
        images: (N, 3, S, S) uint8. With ``scoring`` angles N * views * D * 4 bytes of features are kept.
    """
    uniform = UniformViews(detector, images)
    if detector.config.train_angles == "uniform":
        return uniform
    angles = torch.tensor(scoring_angles(detector.config.views), dtype=torch.float64)
    features = uniform.pooled(torch.arange(len(images)), angles.expand(len(images), -1))
    return ScoringViews(features.view(len(images), len(angles), -1), detector.config.train_views)
