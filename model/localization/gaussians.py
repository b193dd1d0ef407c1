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


class PositionGaussians(nn.Module):
    """One Gaussian per pooled stage, over all positions of flawless photos, and how far each position lies from it.

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
    def size_bytes(self) -> int:
        """Memory of the Gaussians."""
        return sum(tensor.nbytes for tensor in self.buffers())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Computes how much each position deviates.

        Args:
            maps: (N, C, h, w) of each pooled stage, of unrotated photos.

        Returns:
            float32 (N, H, W) at the grid of the finest stage; 0 is as in flawless photos on average, 1 one standard
            deviation above. Higher is more anomalous.
        """
        found = [self._calibrate(stage, self._measure(stage, one)) for stage, one in enumerate(maps)]
        finest = max((one.shape[1:] for one in found), key=lambda grid: grid[0] * grid[1])
        same = [one if one.shape[1:] == finest else resize_maps(one, (finest[0], finest[1])) for one in found]
        return torch.stack(same).mean(0)

    def _calibrate(self, stage: int, logs: Tensor) -> Tensor:
        return (logs - self.get_buffer(f"level{stage}")) / self.get_buffer(f"spread{stage}")

    def _measure(self, stage: int, maps: Tensor) -> Tensor:
        """Computes log squared distances (N, h, w) of maps (N, C, h, w)."""
        count, _, height, width = maps.shape
        # Channels first, as the maps lie in memory: to turn them around takes longer than the product.
        centred = maps.float().flatten(2) - self.get_buffer(f"mean{stage}")[:, None]
        with use_precision(self._precision, centred.device):  # the ridge is far above what bf16 rounds
            whitened = (self.get_buffer(f"whitening{stage}") @ centred).float()
        distances = whitened.mul_(whitened).mean(1).clamp_min_(_SMALLEST)
        return distances.log().view(count, height, width)

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
        distances = [[self._measure(stage, one) for stage, one in enumerate(maps)] for maps in again]
        for stage in self._stages:
            logs = torch.cat([batch[stage] for batch in distances])
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


def resize_maps(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resizes (N, h, w) to another grid, bilinearly."""
    return F.interpolate(maps[:, None], size=grid, mode="bilinear", align_corners=False)[:, 0]
