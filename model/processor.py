"""What a machine's processor says of itself, read without torch, whose import takes two seconds of CPU."""

from __future__ import annotations

import os
from pathlib import Path

from model.config import is_bf16_allowed

BF16_INSTRUCTIONS = frozenset(("amx_bf16", "avx512_bf16"))
"""Linux's names of the instructions that make bf16 faster than float32."""
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that tell oneDNN to leave instructions alone."""


def judge_bf16() -> bool | None:
    """Tells whether this processor multiplies bf16 faster than float32, as `model.hardware.has_fast_bf16` does.

    Returns:
        None where only torch can tell: Linux names no instructions, or oneDNN is told to leave some alone.

    Raises:
        ValueError: the environment variable ATTENTDIFFERNET_BF16 is neither auto nor off.
    """
    if not is_bf16_allowed():
        return False
    instructions = read_instructions()
    if not instructions or any(os.environ.get(name) for name in _LIMITS):
        return None
    return not BF16_INSTRUCTIONS.isdisjoint(instructions)


def read_instructions() -> frozenset[str]:
    """Reads the instruction sets of an x86 processor from Linux; none elsewhere."""
    return frozenset(read_cpu_field("flags").split())


def read_cpu_name() -> str:
    """Reads the processor's name from Linux; "this CPU" where there is none to read."""
    return read_cpu_field("model name") or "this CPU"


def read_cpu_field(name: str) -> str:
    """Reads what Linux says of the first core under a name; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def count_cores() -> int:
    """Counts the cores that this process may use: of its CPU set, and no more than its container's quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota_us, period_us = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(usable, round(int(quota_us) / int(period_us))))
    except (OSError, ValueError):  # no such file, or the quota is "max"
        return usable
