"""The two AlexNets that are built here: torchvision's, which the papers use, and the original of Caffe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn


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
class AlexNet:
    """A sequence of layers; stage i of BACKBONE_STAGES is its layers up to index ``ends[i]``, exclusive.

    Attributes:
        build: builds the layers with torch's own random weights.
        ends: of the stages.
        channels: of the stages' maps.
    """

    build: Callable[[], nn.Sequential]
    ends: tuple[int, ...]
    channels: tuple[int, ...]


ALEXNETS: Mapping[str, AlexNet] = MappingProxyType(
    {
        "alexnet": AlexNet(build_alexnet, (3, 6, 8, 10, 12), (64, 192, 384, 256, 256)),
        "alexnet_caffe": AlexNet(build_alexnet_caffe, (4, 8, 10, 12, 14), (96, 256, 384, 384, 256)),
    }
)
"""Name -> network, for the keys of `model.config.BACKBONE_STAGES`."""


def initialize_layers(layers: nn.Module) -> None:
    """Draws He weights: with torch's default the signal of a random network fades from layer to layer."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
