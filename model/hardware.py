"""What a machine computes fast."""

from __future__ import annotations

import torch


def has_fast_bf16(device: torch.device | str) -> bool:
    """Whether bf16 matrix products have a unit of their own: AMX in a CPU, tensor cores in a GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_amx_tile_supported())
