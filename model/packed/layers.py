"""Layers of a frozen network in pure bf16, channels-last, for scoring alone.

On a CPU a convolution is oneDNN's, its weights reordered once and ReLU inside: what torch's inductor makes of a frozen
network, without half a minute of compiling. On other devices it is torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from model.network.backbone import ChannelNorm

Layer = Callable[[Tensor], Tensor]
"""Maps bf16 (N, C, H, W), channels-last, to the same."""


class PackedConvolution:
    """A convolution, then ReLU where asked for."""

    def __init__(self, convolution: nn.Conv2d, *, relu: bool) -> None:
        """Copies the weights, rounded to bf16; the bias stays float32 where oneDNN takes it so."""
        self._relu, self._on_cpu = relu, convolution.weight.device.type == "cpu"
        self._stride, self._padding = convolution.stride, convolution.padding
        self._dilation, self._groups = convolution.dilation, convolution.groups
        self._weight = convolution.weight.detach().to(torch.bfloat16, memory_format=torch.channels_last)
        bias = torch.zeros(len(self._weight)) if convolution.bias is None else convolution.bias.detach()
        self._bias = bias.to(self._weight.device, torch.float32 if self._on_cpu else torch.bfloat16)
        self._reordered: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, maps: Tensor) -> Tensor:
        """Convolves."""
        if not self._on_cpu:
            plain = F.conv2d(maps, self._weight, self._bias, self._stride, self._padding, self._dilation, self._groups)
            return plain.relu_() if self._relu else plain
        weight, then = self._reorder_weight(tuple(maps.shape)), "relu" if self._relu else "none"
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            maps, weight, self._bias, self._padding, self._stride, self._dilation, self._groups, then, [], ""
        )
        return fused

    def _reorder_weight(self, shape: tuple[int, ...]) -> Tensor:
        """Returns the weights as oneDNN wants them for this shape; any other order it would mend anew in every call."""
        if shape not in self._reordered:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks the shape
            geometry = self._padding, self._stride, self._dilation, self._groups
            self._reordered[shape] = reorder(self._weight.to_mkldnn(), *geometry, list(shape))
        return self._reordered[shape]


class PackedMaxPool:
    """3 x 3 maximum of stride 2, of values >= 0.

    bf16 numbers >= 0 are in the order of their bits, and integers have a vector instruction for the larger of two: on a
    CPU this takes half of torch's time, which compares bf16 numbers as float32.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """Takes over whether the last, incomplete window counts."""
        self._pool, self._ceil = pool, pool.ceil_mode

    def __call__(self, maps: Tensor) -> Tensor:
        """Pools."""
        if maps.device.type != "cpu":
            pooled: Tensor = self._pool(maps)
            return pooled
        return self._pool_along(self._pool_along(maps.view(torch.int16), 2), 3).view(torch.bfloat16)

    def _pool_along(self, values: Tensor, dim: int) -> Tensor:
        length = values.shape[dim]
        windows = -(-(length - 3) // 2) + 1 if self._ceil else (length - 3) // 2 + 1
        first, second = (values.narrow(dim, start, length - start)[select_every_other(dim)] for start in (0, 1))
        largest = torch.maximum(first.narrow(dim, 0, windows), second.narrow(dim, 0, windows))
        third = first.narrow(dim, 1, min(windows, first.shape[dim] - 1))
        head = largest.narrow(dim, 0, third.shape[dim])
        torch.maximum(head, third, out=head)
        return largest


def select_every_other(dim: int) -> tuple[slice, ...]:
    """Returns the index that takes every second value along ``dim``."""
    return (*(slice(None) for _ in range(dim)), slice(None, None, 2))


class _PackedChannelNorm:
    """AlexNet's local response normalisation, in place, its 1 + ... inside the sum.

    The plain one is `model.network.backbone.ChannelNorm`.
    """

    def __init__(self, norm: ChannelNorm) -> None:
        channels = len(norm.band)
        sums = nn.Conv2d(channels, channels, 1, device=norm.band.device)
        sums.load_state_dict({"weight": norm.band, "bias": torch.ones(channels)})
        self._sums = PackedConvolution(sums, relu=False)

    def __call__(self, maps: Tensor) -> Tensor:
        root = self._sums(maps.square()).rsqrt_()
        return maps.mul_(root.mul_(root.sqrt()))


def pack_layers(layers: Iterable[nn.Module]) -> Iterator[tuple[int, Layer]]:
    """Packs a feature sequence; yields each layer with the number of the given ones that are done after it.

    Args:
        layers: of `model.network.backbone`: convolutions with a ReLU behind them, 3 x 3 max-pooling of stride 2,
            normalisation over channels.

    Raises:
        ValueError: another layer.
    """
    given = list(layers)
    for end, layer in enumerate(given, start=1):
        if isinstance(layer, nn.ReLU):
            continue  # inside the convolution before it
        if isinstance(layer, nn.Conv2d):
            yield end + 1, PackedConvolution(layer, relu=True)
        elif isinstance(layer, nn.MaxPool2d):
            yield end, PackedMaxPool(layer)
        elif isinstance(layer, ChannelNorm):
            yield end, _PackedChannelNorm(layer)
        else:
            raise ValueError(f"needed a layer that can be packed for scoring, got {layer}")
