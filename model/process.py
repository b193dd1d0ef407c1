"""What a process that computes sets once, whatever it computes."""

from __future__ import annotations

import ctypes
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_MAX_MMAP_THRESHOLD_BYTES = 2**25  # glibc refuses more
_NEVER_BYTES = 2**31 - 1


def prepare_process(*, threads: int = 1) -> None:
    """Sets what every process of ours that computes needs.

    One thread where nothing else is asked for, because Ray shares the cores out, a worker each; and no TF32, which
    cuDNN takes for fp32 by default: scores must not depend on the device.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False


def keep_freed_memory() -> None:
    """Tells glibc to reuse large blocks instead of handing them back to the kernel, in a process that scores.

    A network's maps are megabytes each, and the same in every batch. Mapped anew each time, their pages are zeroed one
    by one at first touch, which took up to as long as AlexNet's convolutions in bf16. Other allocators stay as they
    are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return
    mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _NEVER_BYTES)


def forget_peak_memory() -> None:
    """Begins to measure `read_peak_memory` anew; does nothing where the system has no such thing."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)


def read_peak_memory() -> int | None:
    """Reads the most resident memory of this process since `forget_peak_memory`, in bytes; None where nobody knows."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])
