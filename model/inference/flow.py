"""A flow made for scoring: latents alone, subnets in bf16, the stream that they act on in float32.

``model.network.flow`` is what it must agree with, up to the rounding of bf16 (tests/model/inference).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from model.network.flow import AtanClamp, Flow


@dataclass(frozen=True)
class _HalfSubnet:
    """Weights and biases of Linear layers, bf16, with a ReLU after each but the last."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Maps float32 (N, D_in) to float32 (N, D_out)."""
        hidden = x.to(torch.bfloat16)
        for weight, bias in self.layers[:-1]:
            hidden = F.linear(hidden, weight, bias).relu_()
        return F.linear(hidden, *self.layers[-1]).float()


@dataclass(frozen=True)
class _HalfBlock:
    """A fixed permutation, then a GLOW coupling."""

    permutation: Tensor
    second: _HalfSubnet
    first: _HalfSubnet
    split: int

    def __call__(self, x: Tensor, clamp: AtanClamp) -> Tensor:
        """Maps (N, D) to the same."""
        left, right = x[:, self.permutation].tensor_split([self.split], dim=1)
        left = couple(left, self.second(right), clamp)
        return torch.cat([left, couple(right, self.first(left), clamp)], dim=1)


def couple(half: Tensor, outcome: Tensor, clamp: AtanClamp) -> Tensor:
    """Scales and shifts one half (N, D) by the other's subnet output (N, 2D)."""
    scale, shift = outcome.tensor_split(2, dim=1)
    return torch.addcmul(shift, half, (clamp.alpha * clamp(scale)).exp_())


class HalfFlow:
    """The latents of one flow."""

    def __init__(self, flow: Flow) -> None:
        """Takes bf16 copies of the subnets' weights, on their device."""
        self._clamp = flow.clamp
        self._blocks = [
            _HalfBlock(permute.perm, copy_subnet(coupling.subnet2), copy_subnet(coupling.subnet1), coupling.split_len1)
            for permute, coupling in flow.blocks()
        ]

    @property
    def size_bytes(self) -> int:
        """Memory of the weights."""
        subnets = [subnet for block in self._blocks for subnet in (block.first, block.second)]
        return sum(tensor.nbytes for subnet in subnets for layer in subnet.layers for tensor in layer)

    def latents(self, x: Tensor) -> Tensor:
        """Maps scaled features (N, D), float32, to latents (N, D), float32."""
        for block in self._blocks:
            x = block(x, self._clamp)
        return x


def copy_subnet(subnet: nn.Module) -> _HalfSubnet:
    """Takes bf16 copies of the weights of a subnet's Linear layers."""
    linear = [layer for layer in subnet.children() if isinstance(layer, nn.Linear)]
    return _HalfSubnet(tuple((layer.weight.detach().bfloat16(), layer.bias.detach().bfloat16()) for layer in linear))
