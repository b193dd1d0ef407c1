"""A held-out loss in standardised features: the same for the same density, whatever space it was fitted in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.training.held_out_loss import standardize_loss
from tests.support.detectors import TINY


def _draw_correlated_features(count: int, dimensions: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(dimensions) + 0.02 * torch.randn(dimensions, dimensions, generator=generator)
    scales = torch.logspace(0, 1, dimensions)
    return torch.randn(count, dimensions, generator=generator) @ mixing * scales + 5


def _compute_gaussian_loss(features: Tensor) -> float:
    """What the Gaussian that fits features (N, D) best loses on them, in nats per dimension less 0.5 log(2 pi)."""
    covariance = torch.cov(features.double().T, correction=0)
    return 0.5 + 0.5 * float(torch.linalg.slogdet(covariance)[1]) / features.shape[1]


@pytest.mark.parametrize("kind", ["none", "global", "channel", "whiten"])
def test_a_density_has_the_same_loss_whatever_scaling_it_was_fitted_behind(kind: str) -> None:
    detector = AttentDifferNet(DetectorConfig.model_validate(TINY | {"feature_scaling": kind}))
    pooled = _draw_correlated_features(2000, detector.feature_dim)
    detector.fit_feature_scaling(pooled)
    loss = _compute_gaussian_loss(detector.scale_features(pooled))
    standardized = (pooled - pooled.mean(0)) / pooled.std(0, correction=0)
    # float32 features with scales from 1 to 10
    assert standardize_loss(detector, loss, pooled=pooled) == pytest.approx(
        _compute_gaussian_loss(standardized), abs=1e-4
    )


def test_shrinking_the_features_gains_nothing() -> None:
    """The loss of a shrunk space is lower by log 10, its standardised loss is not."""
    detector = AttentDifferNet(DetectorConfig.model_validate(TINY | {"feature_scaling": "none"}))
    pooled = _draw_correlated_features(100, detector.feature_dim)
    shrunk = standardize_loss(detector, 1.0 - 2.302585093, pooled=pooled / 10)
    assert shrunk == pytest.approx(standardize_loss(detector, 1.0, pooled=pooled), abs=1e-6)
