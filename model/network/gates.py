"""What attention blocks are made of: gates that can be watched, and gate inputs that are standardised once.

Both are modules so that whoever trains or watches attention finds them in a block of any kind, by type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_DEAD_INPUT_STD = 1e-2
"""Floor of an input's standard deviation, relative to the mean over inputs: a dead channel must not divide by 0."""


class Gate(nn.Module):
    """scale * sigmoid(u): with scale 2 the identity at u = 0, with scale 1 the published gate."""

    def __init__(self, scale: float) -> None:
        """``scale``: the open upper end of the gate, > 0."""
        super().__init__()
        self.scale = scale

    def forward(self, u: Tensor) -> Tensor:
        """Returns the gate, the shape of ``u``, in (0, scale)."""
        return self.scale * torch.sigmoid(u)


class GateInput(nn.Module):
    """(x - mean) / std of each channel, with statistics that are fitted once and then frozen.

    Frozen, not of the batch: a photo's gate must not depend on the photos scored with it.

    Attributes:
        mean: (1, C, 1, 1), 0 until fitted.
        std: (1, C, 1, 1), 1 until fitted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        """Starts as the identity on (N, channels, H, W)."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Standardises (N, C, H, W)."""
        return (x - self.mean) / self.std

    def reset(self) -> None:
        """Makes it the identity again."""
        self.mean.zero_()
        self.std.fill_(1)

    def fit(self, count: Tensor, total: Tensor, squares: Tensor) -> None:
        """Takes mean and std from the number of values a channel, their sum and their sum of squares, float64 (C,)."""
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        floor = (_DEAD_INPUT_STD * std.mean()).clamp_min(torch.finfo(torch.float32).tiny)
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(std.clamp_min(floor).view_as(self.std))


@contextmanager
def collect_gate_statistics(attention: nn.Module) -> Iterator[None]:
    """Fits every gate input below ``attention`` to what passes through it inside the block.

    The gates are the identity inside it: one pass serves all stages, and the statistics are those of plain features,
    whatever the gates have learnt.
    """
    inputs = [module for module in attention.modules() if isinstance(module, GateInput)]
    sums: dict[nn.Module, list[Tensor]] = {}

    def collect(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].detach().double().transpose(0, 1).flatten(1)
        found = [torch.tensor(values.shape[1]), values.sum(1), values.square().sum(1)]
        before = sums.get(module, [torch.zeros(()) for _ in found])
        sums[module] = [one.to(other.device) + other for one, other in zip(before, found, strict=True)]

    gates = [module for module in attention.modules() if isinstance(module, Gate)]
    handles = [module.register_forward_pre_hook(collect) for module in inputs]
    handles += [gate.register_forward_hook(lambda _gate, _args, out: torch.ones_like(out)) for gate in gates]
    for module in inputs:
        module.reset()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for module in (module for module in inputs if module in sums):
        module.fit(*sums[module])


def measure_gate_deviation(gates: Sequence[Tensor]) -> Tensor:
    """Sums over gates their mean (gate - 1)^2, a scalar: every gate counts the same, however many values it has."""
    return torch.stack([(gate.float() - 1).square().mean() for gate in gates]).sum()


Statistics = list[tuple[Tensor, Tensor]]


def copy_gate_statistics(attention: nn.Module) -> Statistics:
    """Copies mean and standard deviation of every gate input below ``attention``."""
    inputs = (module for module in attention.modules() if isinstance(module, GateInput))
    return [(module.mean.clone(), module.std.clone()) for module in inputs]


def load_gate_statistics(attention: nn.Module, statistics: Statistics) -> None:
    """Gives every gate input below ``attention`` what `copy_gate_statistics` took from there."""
    inputs = (module for module in attention.modules() if isinstance(module, GateInput))
    for module, (mean, std) in zip(inputs, statistics, strict=True):
        module.mean.copy_(mean)
        module.std.copy_(std)


@contextmanager
def record_gates(attention: nn.Module) -> Iterator[list[Tensor]]:
    """Gives a list that receives the output of every gate below ``attention``, in the order of the calls."""
    gates: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, _args, gate: gates.append(gate))
        for module in attention.modules()
        if isinstance(module, Gate)
    ]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()
