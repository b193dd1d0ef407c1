"""Scalings of pooled features, fitted to flawless training views before the flow sees any.

DifferNet has none: its first losses are about 1e12, and its flow spends hundreds of steps on finding the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

DEAD_CHANNEL_STD = 1e-2
"""Floor of a channel's standard deviation, relative to the mean over channels: a dead channel must not divide by 0."""


@dataclass(frozen=True)
class Scaling:
    """((x - mean) / std) @ rotation.

    Attributes:
        mean: (D,).
        std: (D,), positive.
        rotation: (D, D), or None for the unit matrix.
    """

    mean: Tensor
    std: Tensor
    rotation: Tensor | None

    @property
    def size_bytes(self) -> int:
        """Memory of the three."""
        return self.mean.nbytes + self.std.nbytes + (0 if self.rotation is None else self.rotation.nbytes)

    def apply(self, pooled: Tensor) -> Tensor:
        """Scales pooled features (N, D), in the wider type of theirs and this scaling's."""
        scaled = (pooled - self.mean) / self.std
        return scaled if self.rotation is None else scaled @ self.rotation


def fit_scaling(kind: Literal["global", "channel", "whiten"], pooled: Tensor) -> Scaling:
    """Fits a scaling to pooled features (N, D), N >= 2.

    ``global`` divides by one number, the mean channel standard deviation, and subtracts nothing. ``channel``
    standardises each channel, with a floor for dead ones. ``whiten`` decorrelates the centred channels by the
    symmetric square root of the inverse of their Ledoit-Wolf covariance (J. Multivariate Analysis 88, 2004), so the
    squared length of a scaled vector is its squared Mahalanobis distance. The channels are not standardised before:
    shrinkage towards equal variances of raw channels is worth 1 to 4 points of AUROC
    (infra/decisions/0015-whitening-keeps-variances.md).

    Raises:
        ValueError: values not finite, or features that never vary.
    """
    std, mean = torch.std_mean(pooled.detach().double(), dim=0, correction=0)
    typical = std.mean()
    if not (torch.isfinite(typical) and typical > 0):
        raise ValueError(f"feature scaling needs finite features that vary, got a mean channel std of {typical:g}")
    same = torch.full_like(std, float(typical))
    if kind == "global":
        return Scaling(torch.zeros_like(mean), same, None)
    if kind == "channel":
        return Scaling(mean, std.clamp_min(DEAD_CHANNEL_STD * typical), None)
    return Scaling(mean, same, compute_whitening((pooled.detach().double() - mean) / typical))


def compute_whitening(centred: Tensor) -> Tensor:
    """Computes the symmetric matrix, float64 (D, D), that decorrelates centred features (N, D)."""
    from sklearn.covariance import ledoit_wolf  # seconds to import, which scoring processes need not spend

    covariance, _ = ledoit_wolf(centred.cpu().numpy(), assume_centered=True)
    values, vectors = torch.linalg.eigh(torch.from_numpy(covariance).to(centred.device))
    # A channel that never varies leaves an eigenvalue of nearly 0; the floor is far below what shrinkage leaves else.
    scales = values.clamp_min(1e-6 * float(values.max())).rsqrt()
    whitening: Tensor = (vectors * scales) @ vectors.T
    return whitening
