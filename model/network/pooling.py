"""Pooling of feature maps over their positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from model.config import PoolingKind

_POWER = 3.0
_SMALLEST = 1e-6  # below it the power's gradient is none


def pool_average(maps: Tensor) -> Tensor:
    """Averages (N, C, h, w) over positions: (N, C)."""
    return maps.mean((2, 3))


def pool_maximum(maps: Tensor) -> Tensor:
    """Takes the maximum of (N, C, h, w) over positions: (N, C)."""
    return maps.amax((2, 3))


def pool_generalized_mean(maps: Tensor) -> Tensor:
    """Computes the generalised mean of (N, C, h, w) over positions with p = 3 (GeM, arXiv 1711.02512): (N, C).

    Between average and maximum. Negative values count as 0, as in the source.
    """
    return maps.clamp_min(_SMALLEST).pow(_POWER).mean((2, 3)).pow(1 / _POWER)


POOLINGS: Mapping[PoolingKind, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"average": pool_average, "maximum": pool_maximum, "generalized_mean": pool_generalized_mean}
)
"""Kind -> what pools float32 (N, C, h, w) to (N, C)."""


def pool_maps(stages: Sequence[Tensor], kinds: Sequence[PoolingKind]) -> Tensor:
    """Pools the maps of every stage in every way: float32 (N, D), stage by stage, the kinds one after the other."""
    return torch.cat([POOLINGS[kind](maps.float()) for maps in stages for kind in kinds], dim=1)
