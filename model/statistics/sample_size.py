"""How well an AUROC is known, before anything is measured: what a handful of labelled defects is good for."""

from __future__ import annotations

import math

_TWO_SIDED_95_PERCENT = 1.96


def estimate_auroc_half_width(auroc: float, *, flawless: int, defective: int) -> float:
    """Returns half of the 95 % interval of an AUROC, in (0, 1]; see `estimate_auroc_standard_error`."""
    error = estimate_auroc_standard_error(auroc, flawless=flawless, defective=defective)
    return min(1.0, _TWO_SIDED_95_PERCENT * error)


def estimate_auroc_standard_error(auroc: float, *, flawless: int, defective: int) -> float:
    """Estimates the standard error of a measured AUROC, by Hanley & McNeil (Radiology 143, 1982).

    Their formula assumes exponential scores, which is cautious for most others. It is that of one detector;
    two detectors on the same photos differ by less (model.statistics.resampling has the paired bootstrap).

    Args:
        auroc: in (0, 1), as expected.
        flawless: number of flawless photos, at least 1.
        defective: number of defective photos, at least 1.

    Returns:
        In (0, 1).

    Raises:
        ValueError: a number outside its range.
    """
    if not 0 < auroc < 1 or min(flawless, defective) < 1:
        raise ValueError(
            f"needed an AUROC between 0 and 1 and photos of both classes, got {auroc}, {flawless} and {defective}"
        )
    two_defective, two_flawless = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc)
    variance += (defective - 1) * (two_defective - auroc**2) + (flawless - 1) * (two_flawless - auroc**2)
    return math.sqrt(variance / (flawless * defective))
