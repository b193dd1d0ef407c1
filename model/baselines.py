"""Closed-form baselines: what the flow and its attention have to beat, on the very features that they get.

None of them trains anything, so they cost seconds. Those of pooled features learn from and average over the same
rotated views as the detectors, or else the views would be counted as the flow's merit. The patch memory takes a photo
upright, as its publication does: its positions are too many for several views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from model.config import DetectorConfig, FlowConfig
from model.detector import AttentDifferNet, build_detector
from model.network.rotation import list_scoring_angles
from model.tiling import combine_scores, cut_tiles
from model.training.photos import InMemory
from model.training.views import compute_view_features

_Floats = npt.NDArray[np.floating]

_PHOTOS_PER_CHUNK = 32  # photos in the convolutions at once


@dataclass(frozen=True)
class Baseline:
    """How to score photos without a flow.

    Attributes:
        pooling: which of DetectorConfig's poolings it looks at.
        is_seeded: whether chance plays a part.
        scores: (detector, train photos (N, 3, S, S) uint8, test photos (M, 3, S, S) uint8, seed) -> float64 (M,).
    """

    pooling: str
    is_seeded: bool
    scores: Callable[[AttentDifferNet, Tensor, Tensor, int], npt.NDArray[np.float64]]


def score_baseline(
    name: str, config: DetectorConfig, *, weights: Mapping[str, Tensor] | None, train: Tensor, test: Tensor, seed: int
) -> npt.NDArray[np.float64]:
    """Scores test photos by the baseline ``name`` of BASELINES, on the features of ``config`` without its attention.

    Args:
        name: key of BASELINES.
        config: backbone, image size, scales, views and precision; attention, pooling and flow are not used.
        weights: the backbone's weights by name; None for random ones from ``config.seed``.
        train: (N, 3, S, S) uint8 flawless photos, N >= 3.
        test: (M, 3, S, S) uint8 photos to score, M >= 1.
        seed: of the baselines in which chance plays a part.

    Returns:
        (M,) higher is more anomalous.

    Raises:
        KeyError: no such baseline.
        ValueError: photos of another type or shape, or weights that do not fit.
    """
    baseline = BASELINES[name]
    unused_flow = FlowConfig(blocks=1, hidden_width=1, hidden_layers=1)
    plain = {"attention": {}, "attention_training": "frozen", "pooling": baseline.pooling, "flow": unused_flow}
    detector = build_detector(config.model_copy(update=plain), weights)
    return baseline.scores(detector, train, test, seed)


def score_mahalanobis(train: _Floats, test: _Floats) -> npt.NDArray[np.float64]:
    """Computes the squared Mahalanobis distance to the flawless features, Ledoit-Wolf covariance (scikit-learn).

    A single Gaussian on pooled features of a frozen network, as in arXiv 2005.14140, with the shrinkage of Ledoit &
    Wolf 2004 because D exceeds the number of photos.

    Args:
        train: (N, D) features of flawless photos, N >= 2.
        test: (M, D).

    Returns:
        (M,) distances, >= 0.
    """
    distances: npt.NDArray[np.float64] = LedoitWolf().fit(train).mahalanobis(test)
    return distances


def score_nearest_neighbors(train: _Floats, test: _Floats, *, neighbors: int = 3) -> npt.NDArray[np.float64]:
    """Computes the mean distance to the nearest flawless features, each channel standardised (scikit-learn).

    Deep nearest-neighbour anomaly detection, arXiv 2002.10445.

    Args:
        train: (N, D) features of flawless photos, N >= ``neighbors``.
        test: (M, D).
        neighbors: how many are averaged.

    Returns:
        (M,) distances, >= 0.
    """
    scaler = StandardScaler().fit(train)
    index = NearestNeighbors(n_neighbors=neighbors).fit(scaler.transform(train))
    distances: npt.NDArray[np.float64] = index.kneighbors(scaler.transform(test))[0].mean(1)
    return distances


def score_patch_memory(train: _Floats, test: _Floats, *, seed: int, share: float = 0.1) -> npt.NDArray[np.float64]:
    """Computes the largest distance of a photo's positions to the nearest kept flawless position.

    PatchCore (arXiv 2106.08265) with a random memory in place of its greedy coreset, and without its neighbourhood
    averaging and reweighting.

    Args:
        train: (N, P, C) features of P positions of each flawless photo.
        test: (M, P, C).
        seed: of the choice of the kept positions.
        share: of the N * P positions, in (0, 1], how many are kept; at least one is.

    Returns:
        (M,) distances, >= 0.
    """
    positions = train.reshape(-1, train.shape[-1])
    kept = np.random.default_rng(seed).choice(len(positions), max(1, round(share * len(positions))), replace=False)
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(positions[kept])
    nearest: npt.NDArray[np.float64] = index.kneighbors(test.reshape(-1, test.shape[-1]))[0]
    furthest: npt.NDArray[np.float64] = nearest.reshape(test.shape[:2]).max(1)
    return furthest


def make_pooled_scorer(
    score: Callable[[_Floats, _Floats], npt.NDArray[np.float64]],
) -> Callable[[AttentDifferNet, Tensor, Tensor, int], npt.NDArray[np.float64]]:
    """Returns a scorer of photos, as in ``Baseline.scores``, from one of pooled features (N, D): mean over views.

    With tiles, combined over them as detectors do.
    """

    def scores(detector: AttentDifferNet, train: Tensor, test: Tensor, seed: int) -> npt.NDArray[np.float64]:
        config = detector.config
        found = torch.from_numpy(score(pool_views(detector, train), pool_views(detector, test)))
        mean = found.view(-1, config.views).mean(1)
        combined: npt.NDArray[np.float64] = combine_scores(
            mean, count=config.tile_grid.total, top=config.top_tiles
        ).numpy()
        return combined

    return scores


@torch.inference_mode()
def pool_views(detector: AttentDifferNet, images: Tensor) -> _Floats:
    """Pools features (N * T, D), photo by photo, of photos (N, 3, S, S) at the T scoring angles, as float64."""
    angles = list_scoring_angles(detector.config.views)
    return compute_view_features(detector, InMemory(images), angles=angles).flatten(0, 1).double().numpy()


def score_positions(detector: AttentDifferNet, train: Tensor, test: Tensor, seed: int) -> npt.NDArray[np.float64]:
    """Scores photos by `score_patch_memory` on the positions of the largest scale's feature map, of all tiles; (M,)."""

    def positions(images: Tensor) -> Tensor:
        tiles = cut_tiles(images, detector.config.tile_grid, side=detector.config.image_size)
        normalized = (tiles.float() / 255 - detector.image_mean) / detector.image_std
        found = detector.backbone.feature_map(normalized).flatten(2).transpose(1, 2)
        return found.reshape(len(images), -1, found.shape[-1])

    return score_patch_memory(compute_in_chunks(positions, train), compute_in_chunks(positions, test), seed=seed)


@torch.inference_mode()
def compute_in_chunks(compute: Callable[[Tensor], Tensor], images: Tensor) -> _Floats:
    """Applies ``compute`` to images (N, ...) some at a time, as float64, so that memory suffices."""
    parts = [compute(chunk).double().numpy() for chunk in torch.split(images, _PHOTOS_PER_CHUNK)]
    return np.concatenate(parts)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "mahalanobis": Baseline("average", False, make_pooled_scorer(score_mahalanobis)),
        "mahalanobis_average_max": Baseline("average_max", False, make_pooled_scorer(score_mahalanobis)),
        "nearest_neighbours": Baseline("average", False, make_pooled_scorer(score_nearest_neighbors)),
        "nearest_neighbours_average_max": Baseline("average_max", False, make_pooled_scorer(score_nearest_neighbors)),
        "patch_memory": Baseline("average", True, score_positions),
    }
)
"""Baseline name in tables -> how it scores; ``patch_memory`` looks at positions of the largest scale, unpooled."""
