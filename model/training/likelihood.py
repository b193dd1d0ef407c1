"""The loss of a training step: the flow's likelihood, with attention frozen or trained together with the flow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from model.detector import AttentDifferNet
from model.network.flow import compute_nll
from model.training.collapse_guard import DEAD_STD
from model.training.views import ComputedViews, TrainingViews

Wrap = Callable[[nn.Module], nn.Module]


class Likelihood(Protocol):
    """The loss of some views, and what is trained by it."""

    @property
    def module(self) -> nn.Module:
        """What is trained, as wrapped for several workers."""

    def compute_loss(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Computes the mean negative log-likelihood of photos (B,) in their drawn views (B, T): nats per dimension."""


class FlowLikelihood:
    """The flow on the scaled features of a frozen extractor."""

    def __init__(self, detector: AttentDifferNet, views: TrainingViews, *, wrap: Wrap) -> None:
        """Wraps the flow."""
        self._detector, self._views = detector, views
        has_weights = any(True for _ in detector.flow.parameters())
        self.module = wrap(detector.flow) if has_weights else detector.flow

    def compute_loss(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Computes the loss of features that only the flow learns from, see `Likelihood.compute_loss`."""
        pooled = self._views.pool(photos, drawn)
        return compute_nll(*self.module(self._detector.scale_features(pooled)))


class JointLikelihood:
    """Attention and flow together, on the views themselves.

    A likelihood grows when features shrink. With ``feature_scaling="channel"`` that gains nothing: the features of a
    step are standardised by their own mean and standard deviation, without a learnable affine (batch normalisation,
    arXiv 1502.03167, less its scale and shift). What is left to gain is dependence between channels (rank collapse).
    So the loss also has ``pretext.identity_weight`` times the mean squared distance of attended from plain features,
    in plain standard deviations. The collapse guard stops what goes on all the same.

    A penalty on the gates would not do: where features vary little around a large mean, gates within 1 % of the
    identity can make all of their variance (infra/decisions/0014). Each worker standardises by its own share of a
    step, so several workers do not train exactly what one does.
    """

    def __init__(self, detector: AttentDifferNet, views: ComputedViews, *, wrap: Wrap) -> None:
        """Wraps backbone and flow as one module."""
        self._detector, self._views = detector, views
        self.module = wrap(_Joint(detector))

    def compute_loss(self, photos: Tensor, drawn: Tensor) -> Tensor:
        """Computes the loss that attention learns from too, see `Likelihood.compute_loss`."""
        views = self._views.rotate_photos(photos, drawn)
        z, log_det, pooled = self.module(views)
        loss: Tensor = compute_nll(z, log_det)
        if self._detector.config.feature_scaling != "channel":
            return loss
        with torch.no_grad():
            plain = self._detector.pool_features(views, attended=False)
        distance = (pooled - plain) / plain.std(0, correction=0).clamp_min(DEAD_STD * plain.std(0).mean())
        penalty: Tensor = distance.square().mean()
        return loss + self._detector.config.pretext.identity_weight * penalty


class _Joint(nn.Module):
    def __init__(self, detector: AttentDifferNet) -> None:
        super().__init__()
        self.detector = detector
        protected = detector.config.feature_scaling == "channel"
        self.standardize = standardize_by_batch if protected else detector.scale_features

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled = self.detector.pool_features(views)
        z, log_det = self.detector.flow(self.standardize(pooled))
        return z, log_det, pooled


def standardize_by_batch(pooled: Tensor) -> Tensor:
    """Returns features (B, D) that have mean 0 and standard deviation 1 within this batch."""
    return nn.functional.batch_norm(pooled, None, None, training=True)


def build_likelihood(detector: AttentDifferNet, views: TrainingViews, *, wrap: Wrap) -> Likelihood:
    """Builds the likelihood that ``detector.config.attention_training`` asks for."""
    if isinstance(views, ComputedViews) and trains_jointly(detector):
        return JointLikelihood(detector, views, wrap=wrap)
    return FlowLikelihood(detector, views, wrap=wrap)


def trains_jointly(detector: AttentDifferNet) -> bool:
    """Tells whether the flow's likelihood moves attention too."""
    return detector.config.attention_training == "joint" and bool(detector.config.attention)


def skip_exchange(module: nn.Module) -> AbstractContextManager[None]:
    """Makes DistributedDataParallel keep gradients on the worker inside: for all parts of a step but its last."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return module.no_sync()
    return nullcontext()
