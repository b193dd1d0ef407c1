"""Tail rank: what orders photos where their conformal p-values tie.

No p-value is smaller than 1 / (n + 1): all photos that score above all n calibration photos have that one, a scratch as
well as a broken insulator. Raw scores cannot order them, for scores of two detectors have no common unit. The tail rank
carries on where the p-value ends: beyond the largest calibration score it falls as a generalized Pareto law does, which
is what the upper tail of almost any distribution comes close to (Pickands, Annals of Statistics 1975; Coles, "An
Introduction to Statistical Modeling of Extreme Values", Springer 2001, chapter 4).

It is an estimate by a model, far outside of what was seen. It promises nothing: it is for sorting, the p-value is for
deciding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize

from model.statistics.calibration import Calibration

MIN_CALIBRATION = 80
"""Calibration scores, at least, for a fit: its 20 exceedances are then the upper quarter, not the middle."""
_TAIL_SHARE = 0.1
_MIN_EXCEEDANCES, _MAX_EXCEEDANCES = 20, 100
_SHAPES = (0.05, 1.0)
"""A shape of 0 or less would end the tail, or underflow, and tie what must be ordered. The fit errs to heavy tails."""
_SCALES = (-5.0, 5.0)  # log of the scale, in units of the mean exceedance
MAX_MISFIT = 2.5
"""Anderson-Darling statistic of a fit, at most. In 400 samples each of 20 to 1000 exceedances 99 % of those that follow
the law with a shape of 0.05 to 1 stay below 2.0; of normal and gamma scores, whose tails are lighter, below 2.7."""


class Tail(BaseModel):
    """The law of scores beyond the largest calibration score: (1 + shape * excess / scale) ** (-1 / shape).

    Attributes:
        largest: the largest calibration score.
        scale: > 0, in units of the score.
        shape: > 0; the larger, the slower the tail falls.
        exceedances: calibration scores that it was fitted to. 0: they are too few, or do not follow the law; then it is
            no estimate but an order, so slow that no photo overtakes others for want of calibration photos.
        misfit: Anderson-Darling statistic of the fit, also of one that was thrown away; None where there was none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest: float
    scale: float = Field(gt=0)
    shape: float = Field(gt=0)
    exceedances: int = Field(ge=0)
    misfit: float | None


def fit_tail(calibration: Calibration) -> Tail:
    """Fits the upper tail of calibration scores, their largest tenth; takes about 3 ms.

    Maximum likelihood with a shape of 0.05 to 1, over the scores above a threshold that is one of them. Such a law,
    seen from the largest score on, has the same shape and a larger scale.
    """
    scores = np.asarray(calibration.scores)
    count = int(np.clip(_TAIL_SHARE * len(scores), _MIN_EXCEEDANCES, _MAX_EXCEEDANCES))
    if len(scores) < MIN_CALIBRATION:
        return _order_only(scores, misfit=None)
    excess = scores[-count:] - scores[-count - 1]
    excess = excess[excess > 0]
    if len(excess) < _MIN_EXCEEDANCES or not np.isfinite(mean := float(excess.mean())):
        return _order_only(scores, misfit=None)
    shape, scale = _fit_pareto(excess / mean)
    misfit = _measure_misfit(excess / mean, shape=shape, scale=scale)
    if misfit > MAX_MISFIT:
        return _order_only(scores, misfit=misfit)
    return Tail(
        largest=scores[-1],
        scale=scale * mean + shape * excess[-1],
        shape=shape,
        exceedances=len(excess),
        misfit=misfit,
    )


def compute_tail_ranks(
    scores: npt.NDArray[np.floating], *, calibration: Calibration, tail: Tail
) -> npt.NDArray[np.float64]:
    """Computes tail ranks: p-values whose ties are resolved.

    Between two calibration scores the rank falls in a straight line from the p-value there to the next smaller one;
    beyond the largest it falls from 1 / (n + 1) on, as the tail says. So ``p_value - 1 / (n + 1) <= tail_rank <=
    p_value`` where calibration scores are not tied: it never contradicts the p-value.

    Args:
        scores: (N,) raw scores, higher is more anomalous; infinite scores are allowed.
        calibration: of the detector that gave them.
        tail: of the same, see `fit_tail`.

    Returns:
        (N,) in [0, 1], small is anomalous, falling with the score. Above the smallest calibration score two finite
        scores have the same rank only if floating-point numbers cannot tell them apart.

    Raises:
        ValueError: a score is NaN.
    """
    asked = np.asarray(scores, dtype=np.float64)
    if np.isnan(asked).any():
        raise ValueError(f"tail ranks need scores with a rank, got {int(np.isnan(asked).sum())} NaN of {asked.size}")
    n = len(calibration.scores)
    known, counts = np.unique(np.asarray(calibration.scores), return_counts=True)
    above = (n - np.cumsum(counts) + 1) / (n + 1)  # the p-value right above each of them
    with np.errstate(over="ignore"):
        excess = np.maximum(asked - tail.largest, 0.0) / tail.scale
        beyond = np.exp(-np.log1p(tail.shape * excess) / tail.shape) / (n + 1)
    following = np.minimum(np.searchsorted(known, asked, side="right"), len(known) - 1)
    inside = np.maximum(np.interp(asked, known, above, left=1.0), above[following])  # rounding may fall below the line
    return np.where(asked > tail.largest, beyond, inside)


def _order_only(scores: npt.NDArray[np.float64], *, misfit: float | None) -> Tail:
    """Returns the slowest tail, in units of how far the largest score lies above the middle ones."""
    largest, middle = float(scores[-1]), float(scores[len(scores) // 2])
    widths = (largest / 2 - middle / 2, abs(largest), 1.0)  # halved, for a difference may overflow
    scale = next(width for width in widths if width > 0)
    return Tail(largest=largest, scale=scale, shape=_SHAPES[1], exceedances=0, misfit=misfit)


def _fit_pareto(excess: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Fits shape and scale of a generalized Pareto law to K exceedances with mean 1."""

    def lose(law: npt.NDArray[np.float64]) -> float:
        shape, log_scale = law
        return float(log_scale + (1 + 1 / shape) * np.log1p(shape * excess * np.exp(-log_scale)).mean())

    shape, log_scale = minimize(lose, (0.2, 0.0), bounds=(_SHAPES, _SCALES), method="L-BFGS-B").x
    return float(shape), float(np.exp(log_scale))


def _measure_misfit(excess: npt.NDArray[np.float64], *, shape: float, scale: float) -> float:
    """Measures the Anderson-Darling statistic of ascending exceedances under a law; it weighs the tail."""
    survival = -np.log1p(shape * excess / scale) / shape  # log of the share above
    with np.errstate(divide="ignore"):
        below = np.log(-np.expm1(survival))
    weights = 2 * np.arange(1, len(excess) + 1) - 1
    return float(-len(excess) - (weights * (below + survival[::-1])).mean())
