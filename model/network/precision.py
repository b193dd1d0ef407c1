"""How the networks compute in a precision: float32, bf16 by the machine's own kernels, or bf16 rounded in float32."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode

from model.config import Precision
from model.hardware import has_fast_bf16
from model.processor import read_cpu_name

_ROUNDED: tuple[Callable[..., object], ...] = (F.conv1d, F.conv2d, F.linear)


def use_precision(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Computes convolutions and matrix products inside the block in a precision.

    bf16 is torch's autocast, and on a CPU that is slow at it `RoundToBf16`: autocast takes five times as long as
    float32 there. The latter warns once per process.
    """
    if precision == "fp32" or device.type != "cpu" or has_fast_bf16(device):
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    warn_of_slow_bf16()
    return RoundToBf16()


@cache
def warn_of_slow_bf16() -> None:
    """Warns, once per process, that bf16 is no faster than float32 here."""
    warnings.warn(
        f"{read_cpu_name()} has no fast bf16 (AMX, AVX512-BF16): bf16 is computed in fp32 and rounded, at fp32's speed",
        RuntimeWarning,
        stacklevel=2,
    )


class RoundToBf16(TorchFunctionMode):
    """Gives convolutions and matrix products the rounding of bf16 on any CPU, at the speed of float32.

    bf16 hardware multiplies inputs of 8 bits, sums in float32 and rounds the sum. So does this: rounded inputs and
    weights go through float32's kernels, and the outcome is rounded, with bf16 as its type, as under autocast.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Computes one function of torch."""
        if func not in _ROUNDED:
            return func(*args, **(kwargs or {}))
        rounded = [arg.bfloat16().float() if isinstance(arg, Tensor) else arg for arg in args]
        outcome = func(*rounded, **(kwargs or {}))
        return outcome.bfloat16() if isinstance(outcome, Tensor) else outcome
