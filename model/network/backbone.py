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


def _conv(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=padding, groups=groups)
    return [convolution, nn.ReLU(inplace=True)]


def _pool(*, ceil_mode: bool = False) -> nn.Module:
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


def _alexnet() -> nn.Sequential:
    """``torchvision.models.alexnet().features``."""
    return nn.Sequential(
        *_conv(3, 64, 11, stride=4, padding=2), _pool(),
        *_conv(64, 192, 5, padding=2), _pool(),
        *_conv(192, 384, 3, padding=1),
        *_conv(384, 256, 3, padding=1),
        *_conv(256, 256, 3, padding=1), _pool(),
    )  # fmt: skip


def _alexnet_caffe() -> nn.Sequential:
    """The original two-group AlexNet (Krizhevsky 2012) as released with Caffe, RGB input."""
    return nn.Sequential(
        *_conv(3, 96, 11, stride=4), ChannelNorm(96), _pool(ceil_mode=True),
        *_conv(96, 256, 5, padding=2, groups=2), ChannelNorm(256), _pool(ceil_mode=True),
        *_conv(256, 384, 3, padding=1),
        *_conv(384, 384, 3, padding=1, groups=2),
        *_conv(384, 256, 3, padding=1, groups=2), _pool(ceil_mode=True),
    )  # fmt: skip


def _squeezenet1_0() -> nn.Sequential:
    """``torchvision.models.squeezenet1_0().features`` (arXiv 1602.07360)."""
    from torchvision.models.squeezenet import Fire  # importing torchvision takes 6 s, in every scoring process

    return nn.Sequential(
        *_conv(3, 96, 7, stride=2), _pool(ceil_mode=True),
        Fire(96, 16, 64, 64), Fire(128, 16, 64, 64), Fire(128, 32, 128, 128), _pool(ceil_mode=True),
        Fire(256, 32, 128, 128), Fire(256, 48, 192, 192), Fire(384, 48, 192, 192), Fire(384, 64, 256, 256),
        _pool(ceil_mode=True), Fire(512, 64, 256, 256),
    )  # fmt: skip


@dataclass(frozen=True)
class _Architecture:
    """A feature sequence; stage i of BACKBONE_STAGES is its layers up to index ``ends[i]``, exclusive."""

    build: Callable[[], nn.Sequential]
    ends: tuple[int, ...]
    channels: tuple[int, ...]


_ARCHITECTURES = {
    "alexnet": _Architecture(_alexnet, (3, 6, 8, 10, 12), (64, 192, 384, 256, 256)),
    "alexnet_caffe": _Architecture(_alexnet_caffe, (4, 8, 10, 12, 14), (96, 256, 384, 384, 256)),
    "squeezenet1_0": _Architecture(
        _squeezenet1_0, (3, 4, 5, 7, 8, 9, 10, 12, 13), (96, 128, 128, 256, 256, 384, 384, 512, 512)
    ),
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
            _initialize(self.layers)
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
        """The layers up to the map that is pooled."""
        return list(islice(self.layers, self._last))

    def stage_ending_at(self, end: int) -> str:
        """The stage whose last layer is the ``end``-th, counted from 1; empty for none."""
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
        if problems := _problems(needed, given):
            raise ValueError(f"backbone weights do not fit: {'; '.join(problems)}")
        self.layers.load_state_dict(given, strict=True)


def _initialize(layers: nn.Module) -> None:
    """He initialisation: with torch's default the signal of a random network fades from layer to layer."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _problems(needed: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    shared = needed.keys() & given.keys()
    misfits = [key for key in shared if given[key].shape != needed[key].shape]
    found = {
        "missing": _names(needed.keys() - shared),
        "unexpected": _names(given.keys() - shared),
        "of another shape": _names(
            f"{key} needs {tuple(needed[key].shape)} got {tuple(given[key].shape)}" for key in misfits
        ),
        "not finite floating-point numbers": _names(key for key in shared - set(misfits) if not _is_finite(given[key])),
    }
    return [f"{what}: {names}" for what, names in found.items() if names]


def _names(names: Iterable[str], *, shown: int = 3) -> str:
    """The first few names, cut and escaped: they may come from a hostile file and must stay one short line."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ascii(name)[1:-1][:80] for name in ordered[:shown]) + more


def _is_finite(weights: Tensor) -> bool:
    return weights.is_floating_point() and bool(torch.isfinite(weights).all())
