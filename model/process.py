"""What a process that computes sets once, whatever it computes."""

from __future__ import annotations

import torch


def prepare_process() -> None:
    """Sets what every process of ours that computes needs.

    One thread, because Ray shares the cores out, a worker each; and no TF32, which cuDNN takes for fp32 by default:
    scores must not depend on the device.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
