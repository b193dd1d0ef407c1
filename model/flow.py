"""DifferNet's normalizing flow over pooled features (arXiv 2008.12577, section 3.2), made of FrEIA's blocks."""

from __future__ import annotations

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock, PermuteRandom
from torch import Tensor, nn

from model.config import FlowConfig
from model.seeding import seeded


class AtanClamp:
    """DifferNet's soft clamp 0.636 * atan(u / alpha), in (-1, 1); FrEIA multiplies it by alpha.

    FrEIA's own ``"ATAN"`` is 0.636 * atan(u): alpha times steeper at zero.
    """

    def __init__(self, alpha: float) -> None:
        """``alpha``: the bound of the log scale, in nats."""
        self.alpha = alpha

    def __call__(self, u: Tensor) -> Tensor:
        """Returns the clamped ``u``, same shape."""
        return 0.636 * torch.atan(u / self.alpha)


class Flow(nn.Module):
    """Blocks of a fixed random permutation (seeded by the block's number) and a GLOW affine coupling.

    Attributes:
        dim: D, length of a feature vector.
    """

    def __init__(self, dim: int, config: FlowConfig, *, seed: int) -> None:
        """Builds the flow with weights from ``seed``; the global generators stay untouched.

        Raises:
            ValueError: ``dim`` < 2, which a coupling cannot split.
        """
        super().__init__()
        if dim < 2:
            raise ValueError(f"a coupling flow needs vectors of at least 2 values, got {dim}")
        self.dim = dim
        self._config = config
        with seeded(seed):
            self.inn = self._sequence()

    def _sequence(self) -> nn.Module:
        sequence = SequenceINN(self.dim)
        clamp = self._config.clamp
        for block in range(self._config.blocks):
            sequence.append(PermuteRandom, seed=block)
            sequence.append(
                GLOWCouplingBlock, subnet_constructor=self._subnet, clamp=clamp, clamp_activation=AtanClamp(clamp)
            )
        return sequence  # type: ignore[no-any-return]  # untyped FrEIA class, an nn.Module

    def _subnet(self, dim_in: int, dim_out: int) -> nn.Module:
        """Scales and shifts of one half from the other: hidden Linear-ReLU(-Dropout) layers, then Linear."""
        layers: list[nn.Module] = []
        for _ in range(self._config.hidden_layers):
            layers += [nn.Linear(dim_in, self._config.hidden_width), nn.ReLU()]
            if self._config.dropout > 0:
                layers.append(nn.Dropout(self._config.dropout))
            dim_in = self._config.hidden_width
        return nn.Sequential(*layers, nn.Linear(dim_in, dim_out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features (N, D) to latents (N, D) and log|det dz/dx| (N,), in nats."""
        z, log_det = self.inn(x)
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Maps latents (N, D) back to features (N, D)."""
        x: Tensor = self.inn(z, rev=True, jac=False)[0]
        return x

    def latents(self, x: Tensor) -> Tensor:
        """Maps features (N, D) to latents (N, D), without the Jacobian."""
        z: Tensor = self.inn(x, jac=False)[0]
        return z


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """Returns DifferNet's loss: mean over N of (0.5 ||z||^2 - log|det J|), divided by D; the constant is left out.

    Args:
        z: latents (N, D).
        log_det: (N,), in nats.
    """
    return (0.5 * z.square().sum(1) - log_det).mean() / z.shape[1]
