"""Attention blocks for convolutional feature maps, and what builds them by name.

Squeeze-and-Excitation (arXiv 1709.01507), CBAM (arXiv 1807.06521) and ECA (arXiv 1910.03151). The published gate is
sigmoid(u) at random initialisation. On a frozen backbone, where no classification loss ever trains the gates, that
alone costs 7 (SE) and 13 (CBAM) points of AUROC, so the default gate is 2 * sigmoid(u) with its last layer at zero:
exactly 1, an untrained block changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from model.config import AttentionConfig, AttentionKind
from model.network.gates import Gate, GateInput

GateStart = Literal["identity", "sigmoid"]
Setting = Literal["reduction", "spatial_kernel"]


def zero_weights(layer: nn.Conv2d) -> None:
    """Sets the weights and the bias of a convolution to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class SqueezeExcitation(nn.Module):
    """Channel gate: global average pool, fc to C/r, ReLU, fc to C, sigmoid (arXiv 1709.01507, section 3).

    The layers are torchvision's (``fc1`` and ``fc2``, 1x1 convolutions), so with ``gate="sigmoid"`` and equal weights
    it equals ``torchvision.ops.SqueezeExcitation`` as long as ``average`` is not fitted.

    Attributes:
        average: standardises the averages once fitted; raw activations of tens would saturate the gate.
        gate: its scale is 2, which makes a zero last layer the identity, or 1, the published gate.
    """

    def __init__(self, channels: int, *, reduction: int = 16, gate: GateStart = "identity") -> None:
        """Builds the block with max(1, channels // reduction) squeezed units."""
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.average = GateInput(channels)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = Gate(2.0 if gate == "identity" else 1.0)
        if gate == "identity":
            zero_weights(self.fc2)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns (N, C, H, W): each channel of ``maps`` times its gate in (0, scale)."""
        squeezed = self.average(maps.mean((2, 3), keepdim=True, dtype=torch.float32))
        gate: Tensor = self.gate(self.fc2(torch.relu(self.fc1(squeezed))))
        return maps * gate.to(maps.dtype)


class CBAM(nn.Module):
    """Channel gate, then spatial gate (arXiv 1807.06521, section 3).

    The channel gate adds what a shared MLP (``fc1``, ``fc2``) makes of the average and the maximum over positions. The
    spatial gate is one k x k convolution (``conv``) of the mean and the maximum over channels, in that order.

    Attributes:
        average: standardises the averages over positions once fitted.
        maximum: standardises the maxima over positions once fitted.
        position: standardises mean and maximum over channels once fitted.
        channel_gate: its scale is 2, which makes a zero last layer the identity, or 1, the published gate.
        spatial_gate: of the same scale.
    """

    def __init__(
        self, channels: int, *, reduction: int = 16, spatial_kernel: int = 7, gate: GateStart = "identity"
    ) -> None:
        """Builds the block with max(1, channels // reduction) squeezed units; ``spatial_kernel``: pixels, odd."""
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.average, self.maximum, self.position = GateInput(channels), GateInput(channels), GateInput(2)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.conv = nn.Conv2d(2, 1, spatial_kernel, padding=spatial_kernel // 2)
        scale = 2.0 if gate == "identity" else 1.0
        self.channel_gate, self.spatial_gate = Gate(scale), Gate(scale)
        if gate == "identity":
            zero_weights(self.fc2)
            zero_weights(self.conv)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns (N, C, H, W): ``maps`` times a gate per channel, then times a gate per position."""
        average = self._excite(self.average(maps.mean((2, 3), keepdim=True, dtype=torch.float32)))
        maximum = self._excite(self.maximum(maps.amax((2, 3), keepdim=True).float()))
        maps = maps * self.channel_gate(average + maximum).to(maps.dtype)
        mean = maps.mean(1, keepdim=True, dtype=torch.float32)
        position = self.position(torch.cat([mean, maps.amax(1, keepdim=True).float()], dim=1))
        spatial_gate: Tensor = self.spatial_gate(self.conv(position))
        return maps * spatial_gate.to(maps.dtype)

    def _excite(self, pooled: Tensor) -> Tensor:
        hidden: Tensor = self.fc2(torch.relu(self.fc1(pooled)))
        return hidden


class EfficientChannelAttention(nn.Module):
    """Channel gate of ECA-Net: global average pool, 1-d convolution over channels, sigmoid (arXiv 1910.03151).

    No bottleneck: each gate depends on its channel and its k - 1 neighbours, see `compute_eca_kernel`. As in the paper
    the convolution has no bias; the identity gate starts with weights of zero.

    Attributes:
        average: standardises the averages once fitted; raw activations of tens would saturate the gate.
        conv: the convolution over channels, weight (1, 1, k).
        gate: its scale is 2, which makes zero weights the identity, or 1, the published gate.
    """

    def __init__(self, channels: int, *, gate: GateStart = "identity") -> None:
        """Builds the block; ``channels`` decides the kernel."""
        super().__init__()
        kernel = compute_eca_kernel(channels)
        self.average = GateInput(channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.gate = Gate(2.0 if gate == "identity" else 1.0)
        if gate == "identity":
            nn.init.zeros_(self.conv.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Returns (N, C, H, W): each channel of ``maps`` times its gate in (0, scale)."""
        average = self.average(maps.mean((2, 3), keepdim=True, dtype=torch.float32))
        mixed = self.conv(average.flatten(1).unsqueeze(1)).view(average.shape)
        gate: Tensor = self.gate(mixed)
        return maps * gate.to(maps.dtype)


def compute_eca_kernel(channels: int) -> int:
    """Computes ECA's kernel for C channels (arXiv 1910.03151): floor(|log2(C) + 1| / 2), plus one if even."""
    kernel = int(abs((math.log2(channels) + 1) / 2))
    return kernel if kernel % 2 else kernel + 1


ATTENTION: Mapping[AttentionKind, tuple[Callable[..., nn.Module], tuple[Setting, ...]]] = MappingProxyType(
    {
        "se": (SqueezeExcitation, ("reduction",)),
        "cbam": (CBAM, ("reduction", "spatial_kernel")),
        "eca": (EfficientChannelAttention, ()),
    }
)
"""Kind -> its block, and the fields of AttentionConfig that it reads beside ``gate``: a search varies no others.

A block maps (N, channels, H, W) to the same shape and type, for every H, W >= 1: scoring gives it bf16 maps, its own
weights stay float32. It is made of `model.network.gates.Gate` and `model.network.gates.GateInput`, so that it can be
trained and watched.
"""


def build_attention(config: AttentionConfig, channels: int) -> nn.Module:
    """Builds the block ``config`` for feature maps of ``channels`` channels, initialised from torch's generator."""
    block, settings = ATTENTION[config.kind]
    return block(channels, gate=config.gate, **{name: getattr(config, name) for name in settings})
