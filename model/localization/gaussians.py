"""How unusual each position of a photo's feature maps is, by a Gaussian of the positions of flawless photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from model.config import Precision
from model.network.precision import use_precision

PREFIX = "positions."
"""Of the tensors' names in an artifact; artifacts of before have none of them, and no place."""
_RIDGE = 1e-3
_SMALLEST = 1e-12
_SMOOTHED_SIDE = 48
"""Positions a side of a fine grid: there single ones are noise, and peaks of defects are wider."""


class PositionGaussians(nn.Module):
    """One Gaussian per mapped stage, over all positions of flawless photos, and how far each position lies from it.

    A position's deviation is the logarithm of its squared Mahalanobis distance, less what flawless photos have there on
    average. The edges of photos are unusual in every photo, so without that many peaks would lie there.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], *, precision: Precision) -> None:
        """Makes room for the Gaussians, which `fit` fills.

        Args:
            shapes: (C, h, w) of each stage's map.
            precision: of the matrix products.
        """
        super().__init__()
        self._precision = precision
        self._stages = range(len(shapes))
        for stage, (channels, height, width) in enumerate(shapes):
            self.register_buffer(f"mean{stage}", torch.zeros(channels))
            self.register_buffer(f"whitening{stage}", torch.zeros(channels, channels))
            self.register_buffer(f"level{stage}", torch.zeros(height, width))
            self.register_buffer(f"spread{stage}", torch.ones(()))

    @property
    def stages(self) -> int:
        """Mapped stages, the last of the backbone's, that have a Gaussian."""
        return len(self._stages)

    @property
    def size_bytes(self) -> int:
        """Memory of the Gaussians."""
        return sum(tensor.nbytes for tensor in self.buffers())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Computes how much each position deviates.

        Args:
            maps: (N, C, h, w) of each mapped stage, of unrotated photos.

        Returns:
            float32 (N, H, W) at the grid of the finest stage; 0 is as in flawless photos on average, 1 one standard
            deviation above. Higher is more anomalous.
        """
        return self.combine([self._measure(stage, one) for stage, one in enumerate(maps)])

    def map_last(self, maps: Sequence[Tensor]) -> Tensor:
        """Computes what `forward` does of all mapped stages: artifacts of before have Gaussians of the last alone."""
        deviations: Tensor = self(maps[-len(self._stages) :])
        return deviations

    def combine(self, distances: Sequence[Tensor]) -> Tensor:
        """Computes what `forward` returns of the squared distances (N, h, w) of each stage, float32."""
        found = [self._calibrate(stage, take_logarithm(one)) for stage, one in enumerate(distances)]
        finest = max((one.shape[1:] for one in found), key=lambda grid: grid[0] * grid[1])
        same = [one if one.shape[1:] == finest else resize_maps(one, (finest[0], finest[1])) for one in found]
        mean = torch.stack(same).mean(0)
        return mean if min(finest) < _SMOOTHED_SIDE else smooth_maps(mean)

    def list_projections(self) -> list[tuple[Tensor, Tensor]]:
        """Lists for each stage the 1 x 1 convolution, weight (C, C, 1, 1) and bias (C,), that whitens its maps."""
        whitenings = [self.get_buffer(f"whitening{stage}") for stage in self._stages]
        means = [self.get_buffer(f"mean{stage}") for stage in self._stages]
        return [(one[:, :, None, None], -(one @ mean)) for one, mean in zip(whitenings, means, strict=True)]

    def _calibrate(self, stage: int, logs: Tensor) -> Tensor:
        return (logs - self.get_buffer(f"level{stage}")) / self.get_buffer(f"spread{stage}")

    def _measure(self, stage: int, maps: Tensor) -> Tensor:
        """Computes squared distances (N, h, w) of maps (N, C, h, w)."""
        count, _, height, width = maps.shape
        # Channels first, as the maps lie in memory: to turn them around takes longer than the product.
        centred = maps.float().flatten(2) - self.get_buffer(f"mean{stage}")[:, None]
        with use_precision(self._precision, centred.device):  # the ridge is far above what bf16 rounds
            whitened = (self.get_buffer(f"whitening{stage}") @ centred).float()
        return whitened.mul_(whitened).mean(1).view(count, height, width)

    @torch.no_grad()
    def fit(self, batches: Iterable[Sequence[Tensor]], again: Iterable[Sequence[Tensor]]) -> None:
        """Fits the Gaussians, then the level of each position.

        Args:
            batches: maps of flawless photos, batch by batch, as `forward` takes them.
            again: the same once more; all at once would not fit in memory.
        """
        moments = [_Moments() for _ in self._stages]
        for maps in batches:
            for moment, one in zip(moments, maps, strict=True):
                moment.add(one)
        for stage, moment in enumerate(moments):
            mean, whitening = moment.whiten()
            self.get_buffer(f"mean{stage}").copy_(mean)
            self.get_buffer(f"whitening{stage}").copy_(whitening)
        logs_of_batches = [
            [take_logarithm(self._measure(stage, one)) for stage, one in enumerate(maps)] for maps in again
        ]
        for stage in self._stages:
            logs = torch.cat([batch[stage] for batch in logs_of_batches])
            level = logs.mean(0)
            self.get_buffer(f"level{stage}").copy_(level)
            self.get_buffer(f"spread{stage}").copy_((logs - level).square().mean().sqrt().clamp_min(_SMALLEST))


class _Moments:
    """Sums over positions, from which a mean and a covariance follow; in float64, for their difference is small."""

    def __init__(self) -> None:
        self._count, self._sum, self._products = 0, torch.zeros(()), torch.zeros(())

    def add(self, maps: Tensor) -> None:
        """Takes in the positions of maps (N, C, h, w)."""
        vectors = maps.permute(0, 2, 3, 1).flatten(0, 2).double()
        self._count += len(vectors)
        self._sum = self._sum.to(vectors) + vectors.sum(0)
        self._products = self._products.to(vectors) + vectors.T @ vectors

    def whiten(self) -> tuple[Tensor, Tensor]:
        """Returns the mean (C,) and a symmetric matrix (C, C) that decorrelates.

        A small ridge keeps dead channels finite.
        """
        mean = self._sum / self._count
        covariance = self._products / self._count - torch.outer(mean, mean)
        ridge = (_RIDGE * covariance.diagonal().mean()).clamp_min(_SMALLEST)
        covariance += ridge * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        values, vectors = torch.linalg.eigh(covariance)
        return mean, (vectors * values.clamp_min(float(ridge) / 2).rsqrt()) @ vectors.T


def take_logarithm(distances: Tensor) -> Tensor:
    """Returns the logarithm of squared distances; of none at all that of the smallest."""
    return distances.clamp_min(_SMALLEST).log()


def smooth_maps(maps: Tensor) -> Tensor:
    """Averages maps (N, h, w) over 3 x 3 positions, fewer at the edge."""
    return F.avg_pool2d(maps[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]


def resize_maps(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes (N, h, w) to another grid, bilinearly."""
    return F.interpolate(maps[:, None], size=grid, mode="bilinear", align_corners=False)[:, 0]
