"""DifferNet's normalizing flow over pooled features (arXiv 2008.12577, section 3.2), made of FrEIA's blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock, PermuteRandom
from torch import Tensor, nn

from model.config import FlowConfig, Precision
from model.network.precision import use_precision
from model.network.seeding import seed_cpu_generator

VECTORS_PER_PASS = 1024
_NEAR_CLAMP = 0.95


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


class _Subnet(nn.Sequential):
    """A coupling's subnet; with bf16 its matrix products are, its outcome has the type of ``x`` all the same.

    Only the shifts and log-scales carry bf16's rounding then, not the stream that they are applied to.
    """

    def __init__(self, precision: Precision, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self._precision = precision

    def forward(self, x: Tensor) -> Tensor:
        with use_precision(self._precision, x.device):
            outcome: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return outcome.to(x.dtype)


class Flow(nn.Module):
    """Blocks of a fixed random permutation (seeded by the block's number) and a GLOW affine coupling; maybe none.

    Attributes:
        dim: D, length of a feature vector.
        clamp: bounds the couplings' log-scales.
    """

    def __init__(self, dim: int, config: FlowConfig, *, seed: int, precision: Precision = "fp32") -> None:
        """Builds the flow with weights from ``seed``; the global generators stay untouched.

        Args:
            dim: D, length of a feature vector.
            config: blocks and subnets.
            seed: of the subnets' initial weights.
            precision: arithmetic of the subnets' matrix products; latents and log-determinants are float32 always.

        Raises:
            ValueError: ``dim`` < 2, which a coupling cannot split.
        """
        super().__init__()
        if dim < 2:
            raise ValueError(f"a coupling flow needs vectors of at least 2 values, got {dim}")
        self.dim = dim
        self.clamp = AtanClamp(config.clamp)
        self._config, self._precision = config, precision
        with seed_cpu_generator(seed):
            self.inn = self._build_sequence()

    def _build_sequence(self) -> nn.Module:
        sequence = SequenceINN(self.dim)
        alpha = self.clamp.alpha
        for block in range(self._config.blocks):
            sequence.append(PermuteRandom, seed=block)
            sequence.append(
                GLOWCouplingBlock, subnet_constructor=self._build_subnet, clamp=alpha, clamp_activation=self.clamp
            )
        return sequence  # type: ignore[no-any-return]  # untyped FrEIA class, an nn.Module

    def _build_subnet(self, dim_in: int, dim_out: int) -> nn.Module:
        """Builds a map from one half to the other's scales and shifts: Linear-ReLU(-Dropout) layers, then Linear."""
        layers: list[nn.Module] = []
        for _ in range(self._config.hidden_layers):
            layers += [nn.Linear(dim_in, self._config.hidden_width), nn.ReLU()]
            if self._config.dropout > 0:
                layers.append(nn.Dropout(self._config.dropout))
            dim_in = self._config.hidden_width
        last = nn.Linear(dim_in, dim_out)
        if self._config.start == "identity":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        return _Subnet(self._precision, *layers, last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features (N, D) to latents (N, D) and log|det dz/dx| (N,), in nats."""
        if self._config.blocks == 0:
            return x, x.new_zeros(len(x))
        z, log_det = self.inn(x)
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Maps latents (N, D) back to features (N, D)."""
        x: Tensor = self.inn(z, rev=True, jac=False)[0] if self._config.blocks else z
        return x

    def blocks(self) -> list[tuple[PermuteRandom, GLOWCouplingBlock]]:
        """Returns each block's permutation and coupling, in order."""
        parts = list(self.inn.modules())
        permutations = [part for part in parts if isinstance(part, PermuteRandom)]
        return list(zip(permutations, (part for part in parts if isinstance(part, GLOWCouplingBlock)), strict=True))

    def latents(self, x: Tensor) -> Tensor:
        """Maps features (N, D) to latents (N, D), without the Jacobian."""
        z: Tensor = self.inn(x, jac=False)[0] if self._config.blocks else x
        return z

    @torch.no_grad()
    def saturation(self, x: Tensor) -> float:
        """Measures the share of the couplings' log-scales within 5 % of their clamp, for features (N, D).

        A likelihood that grows by stretching alone drives them there.
        """
        shares: list[Tensor] = []

        def watch(_subnet: nn.Module, _args: tuple[Tensor, ...], outcome: Tensor) -> None:
            scales = outcome[:, : outcome.shape[1] // 2]  # GLOW's subnets give the log-scales, then the shifts
            shares.append((self.clamp(scales).abs() > _NEAR_CLAMP).float().mean())

        handles = [part.register_forward_hook(watch) for part in self.modules() if isinstance(part, _Subnet)]
        try:
            self.latents(x)
        finally:
            for handle in handles:
                handle.remove()
        return float(torch.stack(shares).mean()) if shares else 0.0  # without blocks nothing is clamped


def compute_mean_squared_latents(
    latents: Callable[[Tensor], Tensor], features: Tensor, *, vectors_per_pass: int = VECTORS_PER_PASS
) -> Tensor:
    """Computes mean z^2 of each scaled feature vector; passes of even size, so that none is a slow small remainder.

    Args:
        latents: of a flow.
        features: (N, D), N >= 1.
        vectors_per_pass: most vectors in one pass; a flow is memory bound below some 256.

    Returns:
        float64 (N,).
    """
    passes = features.tensor_split(-(-len(features) // vectors_per_pass))
    return torch.cat([latents(rows).double().square().mean(1) for rows in passes])


def compute_nll(z: Tensor, log_det: Tensor) -> Tensor:
    """Returns DifferNet's loss: mean over N of (0.5 ||z||^2 - log|det J|), divided by D; the constant is left out.

    Args:
        z: latents (N, D).
        log_det: (N,), in nats.
    """
    return (0.5 * z.square().sum(1) - log_det).mean() / z.shape[1]
