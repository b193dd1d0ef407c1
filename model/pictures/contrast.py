"""How much of black to white a set of photos uses: little of it is a sign of counts that fill a part of their bits."""

from __future__ import annotations

import numpy as np
from torch import Tensor

MIN_USED_SHARE = 1 / 8
"""Of 256 levels. Photos that use less of them have lost what a wider camera saw."""
_TAIL = 0.001
"""Share of pixels at either end that say nothing: hot and dead ones."""


def warn_of_low_contrast(images: Tensor) -> str | None:
    """Returns a sentence where photos together use less than `MIN_USED_SHARE` of the levels, else None.

    Args:
        images: uint8 (N, 3, S, S).
    """
    counts = np.bincount(images.numpy().reshape(-1), minlength=256)
    shares = np.cumsum(counts) / counts.sum()
    low, high = (int(level) for level in np.searchsorted(shares, (_TAIL, 1 - _TAIL)))
    if high - low + 1 >= 256 * MIN_USED_SHARE:
        return None
    return (
        f"photos use the levels {low} to {high} of 0 to 255: if they hold counts of fewer bits than their files, give "
        "--detector.black and --detector.white, as --detector.white 4095 for 12 bits"
    )
