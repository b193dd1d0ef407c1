"""Convolutional backbones with named stages, attention after any stage, and multi-scale pooled features.

DifferNet (arXiv 2008.12577, section 3.1) pools a frozen AlexNet's last maps at several image scales; AttentDifferNet
(arXiv 2401.08686, figure 2) puts attention between its stages, shared over the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from model.config import BACKBONE_STAGES, DetectorConfig
from model.network.attention import build_attention
from model.network.seeding import seed_cpu_generator


def build_convolution(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> list[nn.Module]:
    """Builds a square convolution and the ReLU behind it."""
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=padding, groups=groups)
    return [convolution, nn.ReLU(inplace=True)]


def build_max_pool(*, ceil_mode: bool = False) -> nn.Module:
    """Builds 3 x 3 max-pooling of stride 2; ``ceil_mode`` counts the last, incomplete window."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=ceil_mode)


class ChannelNorm(nn.Module):
    """AlexNet's local response normalisation: x / (1 + 1e-4 / 5 * sum of squares over 5 neighbouring channels) ** 0.75.

    Equals ``nn.LocalResponseNorm(5)``, whose 3-d pooling takes most of the network's time: the sum is a 1x1 convolution
    with a band matrix here, the power two square roots.
    """

    band: Tensor

    def __init__(self, channels: int) -> None:
        """Builds the band matrix for (N, channels, H, W)."""
        super().__init__()
        neighbors = torch.ones(channels, channels).tril(2).triu(-2)
        self.register_buffer("band", (1e-4 / 5 * neighbors).view(channels, channels, 1, 1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalises (N, C, H, W)."""
        root = torch.rsqrt(1 + F.conv2d(maps.square(), self.band.to(maps.dtype)))
        return maps * (root * root.sqrt())


def build_alexnet() -> nn.Sequential:
    """Builds ``torchvision.models.alexnet().features``."""
    return nn.Sequential(
        *build_convolution(3, 64, 11, stride=4, padding=2), build_max_pool(),
        *build_convolution(64, 192, 5, padding=2), build_max_pool(),
        *build_convolution(192, 384, 3, padding=1),
        *build_convolution(384, 256, 3, padding=1),
        *build_convolution(256, 256, 3, padding=1), build_max_pool(),
    )  # fmt: skip


def build_alexnet_caffe() -> nn.Sequential:
    """Builds the original two-group AlexNet (Krizhevsky 2012) as released with Caffe, RGB input."""
    return nn.Sequential(
        *build_convolution(3, 96, 11, stride=4), ChannelNorm(96), build_max_pool(ceil_mode=True),
        *build_convolution(96, 256, 5, padding=2, groups=2), ChannelNorm(256), build_max_pool(ceil_mode=True),
        *build_convolution(256, 384, 3, padding=1),
        *build_convolution(384, 384, 3, padding=1, groups=2),
        *build_convolution(384, 256, 3, padding=1, groups=2), build_max_pool(ceil_mode=True),
    )  # fmt: skip


@dataclass(frozen=True)
class _Architecture:
    """A feature sequence; stage i of BACKBONE_STAGES is its layers up to index ``ends[i]``, exclusive."""

    build: Callable[[], nn.Sequential]
    ends: tuple[int, ...]
    channels: tuple[int, ...]


_ARCHITECTURES = {
    "alexnet": _Architecture(build_alexnet, (3, 6, 8, 10, 12), (64, 192, 384, 256, 256)),
    "alexnet_caffe": _Architecture(build_alexnet_caffe, (4, 8, 10, 12, 14), (96, 256, 384, 384, 256)),
}


class Backbone(nn.Module):
    """A frozen CNN's convolutional layers (``layers``) with trainable blocks after some stages (``attention``).

    Attributes:
        feature_dim: D = scales * channels of the pooled map, twice that with ``pooling="average_max"``.
    """

    def __init__(self, config: DetectorConfig) -> None:
        """Builds ``config.backbone`` with weights from ``config.seed``; the global generators stay untouched.

        The convolutions are drawn before the attention blocks, so variants of one seed share them.
        """
        super().__init__()
        architecture = _ARCHITECTURES[config.backbone]
        stages = BACKBONE_STAGES[config.backbone]
        pooled = len(stages) - 1 if config.feature_stage is None else stages.index(config.feature_stage)
        self._last = None if config.feature_stage is None else architecture.ends[pooled]
        self.scales = config.scales
        self._with_maximum = config.pooling == "average_max"
        self.feature_dim = config.scales * architecture.channels[pooled] * (2 if self._with_maximum else 1)
        self._stage_ending_at = dict(zip(architecture.ends, stages, strict=True))
        with seed_cpu_generator(config.seed):
            self.layers = architecture.build().requires_grad_(False)
            initialize_layers(self.layers)
            self.attention = nn.ModuleDict(
                {
                    stage: build_attention(config.attention[stage], channels)
                    for stage, channels in zip(stages, architecture.channels, strict=True)
                    if stage in config.attention
                }
            )

    def feature_map(self, images: Tensor, *, attended: bool = True) -> Tensor:
        """Maps normalised images (N, 3, H, W) to the feature map (N, channels, h, w) that is pooled.

        Args:
            images: on the device of the weights.
            attended: False leaves all attention out, which gives plain DifferNet's map.
        """
        maps = images
        for end, layer in enumerate(self.list_used_layers(), start=1):
            maps = layer(maps)
            stage = self.stage_ending_at(end)
            if attended and stage in self.attention:
                maps = self.attention[stage](maps)
        return maps

    def list_used_layers(self) -> list[nn.Module]:
        """Returns the layers up to the map that is pooled."""
        return list(islice(self.layers, self._last))

    def stage_ending_at(self, end: int) -> str:
        """Returns the stage whose last layer is the ``end``-th, counted from 1; empty for none."""
        return self._stage_ending_at.get(end, "")

    def forward(self, images: Tensor, *, attended: bool = True) -> Tensor:
        """Maps normalised float images (N, 3, S, S) to pooled features, float32 (N, D), largest scale first.

        Scale k is the image at S // 2**k, nearest neighbour as in DifferNet; its feature map is averaged over
        positions, and its maximum follows the average with ``pooling="average_max"``.
        """
        side = images.shape[-1]
        pyramid = [images, *(F.interpolate(images, size=side // 2**k, mode="nearest") for k in range(1, self.scales))]
        return torch.cat([self._pool(self.feature_map(scaled, attended=attended)) for scaled in pyramid], dim=1)

    def _pool(self, maps: Tensor) -> Tensor:
        average = maps.float().mean((2, 3))
        return torch.cat([average, maps.float().amax((2, 3))], dim=1) if self._with_maximum else average

    def load_features(self, state: Mapping[str, Tensor]) -> None:
        """Loads the convolutional weights, with or without torchvision's ``features.`` prefix; attention keeps its own.

        Keys of the classifier are ignored.

        Raises:
            ValueError: in one line, which weights are missing, unexpected, of another shape or not finite numbers.
        """
        kept = {key: value for key, value in state.items() if not key.startswith("classifier.")}
        given = {key.removeprefix("features."): value for key, value in kept.items()}
        needed = self.layers.state_dict()
        if problems := list_weight_problems(needed, given):
            raise ValueError(f"backbone weights do not fit: {'; '.join(problems)}")
        self.layers.load_state_dict(given, strict=True)


def initialize_layers(layers: nn.Module) -> None:
    """Draws He weights: with torch's default the signal of a random network fades from layer to layer."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def list_weight_problems(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Lists in what the given weights differ from the needed ones, one entry per kind; empty if they fit."""
    shared = needed.keys() & given.keys()
    misfits = [key for key in shared if given[key].shape != needed[key].shape]
    found = {
        "missing": shorten_names(needed.keys() - shared),
        "unexpected": shorten_names(given.keys() - shared),
        "of another shape": shorten_names(
            f"{key} needs {tuple(needed[key].shape)} got {tuple(given[key].shape)}" for key in misfits
        ),
        "not finite floating-point numbers": shorten_names(
            key for key in shared - set(misfits) if not _is_finite(given[key])
        ),
    }
    return [f"{what}: {names}" for what, names in found.items() if names]


def shorten_names(names: Iterable[str], *, shown: int = 3) -> str:
    """Joins the first names, cut and escaped: they may come from a hostile file and must stay one short line."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ascii(name)[1:-1][:80] for name in ordered[:shown]) + more


def _is_finite(weights: Tensor) -> bool:
    return weights.is_floating_point() and bool(torch.isfinite(weights).all())
