"""A held-out loss by which two trainings of the same variant can be compared.

A likelihood has a unit, that of its features: halve them and each of D dimensions gains log 2. The scaling of features
differs between configurations, and trained attention differs between seeds. So losses need one common unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.network.scaling import DEAD_CHANNEL_STD


def standardize_loss(detector: AttentDifferNet, loss: float, *, pooled: Tensor) -> float:
    """Converts ``loss`` to the space in which every pooled channel has a standard deviation of 1.

    A change of variables changes a likelihood by its log-determinant. This one goes from the detector's scaled features
    back to pooled ones, and from these to standardised ones. With ``feature_scaling`` channel it changes (nearly)
    nothing. A gate that multiplies a channel by a constant gains nothing in this unit.

    What it is good for: detectors of one variant. Between variants no likelihood of features decides: features that
    carry less are easier to predict, and likelihood alone prefers them: the collapse trap of
    model.training.collapse_guard.

    Args:
        detector: fitted.
        loss: mean negative log-likelihood in nats per dimension of the detector's scaled features, without the
            constant 0.5 * log(2 pi), as `model.network.flow.compute_nll` gives it.
        pooled: (N, D) unscaled features of training views, N >= 2.

    Returns:
        Nats per dimension; independent Gaussians of the channels' own mean and standard deviation would have 0.5.
    """
    std = pooled.double().std(0, correction=0)
    std = std.clamp_min(DEAD_CHANNEL_STD * float(std.mean()))
    return loss - compute_scaling_log_det(detector) / detector.feature_dim - float(std.log().mean())


def compute_scaling_log_det(detector: AttentDifferNet) -> float:
    """Computes log|det| of the feature scaling, which is affine whatever its kind; in nats."""
    origin = torch.zeros(1, detector.feature_dim, device=detector.feature_mean.device)
    linear = detector.scale_features(torch.eye(detector.feature_dim, device=origin.device))
    offset = detector.scale_features(origin)
    return float(torch.linalg.slogdet((linear - offset).double())[1])
