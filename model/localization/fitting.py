"""Fits to a trained detector what it needs to say where a photo deviates."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.training.photos import Photos, tile_photos

FITTED_PHOTOS = 200
"""Photos, at most: each has hundreds of positions, and more change the maps by little."""
_BATCH_PHOTOS = 8


def fit_positions(detector: AttentDifferNet, photos: Photos) -> None:
    """Fits the Gaussians of positions to flawless photos, unrotated.

    Maps of one position each leave the detector without, as does a photo that is not stretched to the square: a place
    in the square would not be one in the photo.

    Deterministic, so workers that have the same photos fit the same.

    Args:
        detector: with the attention that it will score with.
        photos: N >= 1 flawless photos; at most `FITTED_PHOTOS` of them, or of their tiles, are looked at, evenly
            spread.
    """
    photos = tile_photos(photos, detector.config)
    chosen = torch.arange(0, len(photos), max(1, -(-len(photos) // FITTED_PHOTOS)))
    if detector.config.resize == "stretch":
        detector.add_positions()
    if detector.positions is not None:
        detector.positions.fit(*(stream_maps(detector, photos, chosen) for _ in range(2)))


@torch.no_grad()
def stream_maps(detector: AttentDifferNet, photos: Photos, chosen: Tensor) -> Iterator[list[Tensor]]:
    """Yields the mapped stages' maps (B, C, h, w) of photos (N,), unrotated, a few at a time."""
    for some in torch.split(chosen, _BATCH_PHOTOS):
        yield detector.pool_with_maps(photos.take(some))[1]
