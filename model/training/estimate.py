"""Estimates how long a training takes, from work that is timed beforehand and changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import OptimizerConfig
from model.detector import AttentDifferNet, use_evaluation_mode
from model.network.flow import compute_nll
from model.training.likelihood import trains_jointly

_TIMED_VIEWS = 2
_PRETEXT_PLAIN_VIEWS = 768
"""Views, at most, whose features the pretext looks at before its first step."""
_BACKWARD = 3
"""A pass forward and backward takes as long as so many forward."""


@dataclass(frozen=True)
class WorkSeconds:
    """Seconds of the two kinds of work that a training is made of.

    Attributes:
        view: the features of one view.
        step: one step of the flow, forward, backward and Adam, on this worker's share of a batch.
    """

    view: float
    step: float


def time_work(detector: AttentDifferNet, optimizer: OptimizerConfig, *, world_size: int = 1) -> WorkSeconds:
    """Times both kinds of work on the detector's device; no weight and no random generator changes.

    It takes as long as two views and one step. The photos are black and the features are 0, which takes no less time.
    """
    config, device = detector.config, detector.image_mean.device
    images = torch.zeros(_TIMED_VIEWS, 3, config.image_size, config.image_size, dtype=torch.uint8, device=device)
    vectors = math.ceil(optimizer.count_batch(world_size) / world_size) * config.train_views
    features = torch.zeros(vectors, detector.feature_dim, device=device)
    with use_evaluation_mode(detector):
        with torch.no_grad():
            view_s = measure_seconds(lambda: detector.pool_features(images).sum()) / _TIMED_VIEWS
        if detector.config.flow.blocks == 0:
            return WorkSeconds(view_s, 0.0)  # nothing takes steps
        step_s = measure_seconds(lambda: _differentiate(detector, features))
    return WorkSeconds(view_s, step_s + _time_adam(detector))


def measure_seconds(compute: Callable[[], Tensor]) -> float:
    """Measures one call; reading its outcome waits for the device."""
    began = time.perf_counter()
    float(compute())
    return time.perf_counter() - began


def _differentiate(detector: AttentDifferNet, features: Tensor) -> Tensor:
    loss = compute_nll(*detector.flow(features))
    weights = [weight for weight in detector.flow.parameters() if weight.requires_grad]
    return torch.autograd.grad(loss, weights)[0].sum()


def _time_adam(detector: AttentDifferNet) -> float:
    """Times Adam on a copy of the flow's largest weight; it takes as long per weight."""
    weights = [weight for weight in detector.flow.parameters() if weight.requires_grad]
    copy = max(weights, key=torch.Tensor.numel).detach().clone().requires_grad_()
    copy.grad = torch.zeros_like(copy)
    adam = torch.optim.Adam([copy], fused=True)
    adam.step()  # the first one makes the moments

    def take_step() -> Tensor:
        adam.step()
        return copy.detach().flatten()[0]

    return measure_seconds(take_step) * sum(weight.numel() for weight in weights) / copy.numel()


def estimate_seconds(
    work: WorkSeconds,
    detector: AttentDifferNet,
    optimizer: OptimizerConfig,
    *,
    photos: int,
    scored: int,
    epochs: int,
    world_size: int = 1,
    learns_pretext: bool = False,
) -> float:
    """Estimates the seconds of a training on this worker, without decoding before it and registering after it.

    Args:
        work: of `time_work`.
        detector: what is trained.
        optimizer: how.
        photos: that train.
        scored: that calibrate.
        epochs: that are left.
        world_size: number of workers.
        learns_pretext: attention has still to learn.
    """
    config = detector.config
    photos, scored = photos * config.tile_grid.total, scored * config.tile_grid.total
    views = photos * config.train_views / world_size
    if config.train_angles == "scoring" and not trains_jointly(detector):
        pooled = photos * config.views / world_size
    else:
        pooled = epochs * views * (_BACKWARD if trains_jointly(detector) else 1)
    if learns_pretext:
        pooled += min(_PRETEXT_PLAIN_VIEWS, 2 * photos) + _BACKWARD * 2 * config.pretext.pairs * config.pretext.steps
    pooled += scored * config.views / world_size
    return work.view * pooled + work.step * epochs * math.ceil(photos / optimizer.count_batch(world_size))
