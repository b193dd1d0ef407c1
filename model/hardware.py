"""What arithmetic a machine can do: the one place that decides how bf16 is computed."""

from __future__ import annotations

import torch

from model.config import Precision, is_bf16_allowed


def has_fast_bf16(device: torch.device | str) -> bool:
    """Tells whether a device multiplies bf16 faster than float32: AMX or AVX512-BF16 in a CPU, tensor cores in a GPU.

    AVX512-BF16 alone (AMD Zen 4) makes 2.3 times the products of float32 a second, AMX seven times as many. A CPU
    without either, such as any with AVX2 alone, has no bf16 kernels at all or slow ones. What needs the answer and not
    torch asks `model.processor.judge_bf16` first.

    Raises:
        ValueError: the environment variable ATTENTDIFFERNET_BF16 is neither auto nor off.
    """
    if not is_bf16_allowed():
        return False
    if torch.device(device).type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    has_instructions = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    # oneDNN may be told to leave them alone (ONEDNN_MAX_CPU_ISA), and then it has no kernel.
    return bool(has_instructions and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def find_faster_precision(device: torch.device | str) -> Precision:
    """Names the precision that a device computes faster in, as `has_fast_bf16` knows and raises."""
    return "bf16" if has_fast_bf16(device) else "fp32"
