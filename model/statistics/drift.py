"""Whether the p-values of some photos look like those of the calibration, or like those of earlier nights.

Conformal p-values of photos like the calibration's are uniform on 1/(n+1), 2/(n+1) ... 1, but for one draw of n
calibration photos only as nearly as two samples of n and m scores agree. So n counts in every test here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

PValues = npt.NDArray[np.floating]
TAIL = 0.05
"""p-values up to here are the tail, where defects gather; the others are the body, which a new camera moves."""
SIGNIFICANCE = 0.001
"""A page of a hundred categories, read every night, should cry wolf about three times a month."""
MIN_PHOTOS = 20
"""Fewer say nothing about a distribution."""
MIN_DISTANCE = 0.1
"""A body that moved less than this is no matter, however many photos show it."""

Kind = Literal["too_few", "like_before", "new_photos", "new_defects"]
WORDS: dict[Kind, str] = {
    "too_few": "too few photos to tell",
    "like_before": "looks like before",
    "new_photos": "looks like new photos",
    "new_defects": "looks like new defects",
}


@dataclass(frozen=True)
class Shift:
    """How far two distributions are apart.

    Attributes:
        distance: Kolmogorov-Smirnov statistic, the largest gap between the two distribution functions, 0 to 1.
        low: lower end of its 95 % interval, by the Dvoretzky-Kiefer-Wolfowitz inequality.
        high: upper end.
        significance: probability of such a gap, or a larger one, where both are the same; asymptotic.
    """

    distance: float
    low: float
    high: float
    significance: float


@dataclass(frozen=True)
class NightJudgement:
    """What the p-values of one night say of one category.

    Attributes:
        kind: see ``WORDS``.
        shift: of all p-values.
        tail_share: share of p-values up to ``TAIL``.
        tail_share_before: the same of what they are compared with.
    """

    kind: Kind
    shift: Shift
    tail_share: float
    tail_share_before: float


def measure_shift(p_values: PValues, *, calibration_photos: int) -> Shift:
    """Measures how far p-values are from uniform.

    Args:
        p_values: (m,) conformal p-values, at least one.
        calibration_photos: n that they were computed with.
    """
    grid = np.arange(1, calibration_photos + 2) / (calibration_photos + 1)
    # Half a step more: p-values from Parquet may be a rounding away from the grid.
    found = np.searchsorted(np.sort(p_values), grid + 0.5 / (calibration_photos + 1)) / len(p_values)
    return make_shift(float(np.abs(found - grid).max()), len(p_values), calibration_photos)


def measure_shift_between(p_values: PValues, earlier: PValues) -> Shift:
    """Measures how far the (m,) p-values of one night are from the (k,) of earlier ones, by the same detector."""
    return make_shift(float(stats.ks_2samp(p_values, earlier).statistic), len(p_values), len(earlier))


def make_shift(distance: float, first: int, second: int) -> Shift:
    """Returns the shift with the interval and significance that two samples of these sizes give."""
    effective = first * second / (first + second)
    margin = math.sqrt(math.log(2 / 0.05) / (2 * effective))
    return Shift(
        distance,
        low=max(0.0, distance - margin),
        high=min(1.0, distance + margin),
        significance=float(stats.kstwobign.sf(distance * math.sqrt(effective))),
    )


def judge_night(p_values: PValues, *, calibration_photos: int, earlier: PValues | None = None) -> NightJudgement:
    """Judges whether photos look like before, like other photos, or like more defects.

    A defect raises the count of small p-values and leaves the rest alone. Another camera, light or season moves the
    rest. Where both is so, it is new photos: their small p-values say nothing then.

    Args:
        p_values: (m,) of this night, at least one.
        calibration_photos: n of the detector that gave them.
        earlier: (k,) of earlier nights by the same detector, or None; fewer than ``MIN_PHOTOS`` are not used.
    """
    before = earlier if earlier is not None and len(earlier) >= MIN_PHOTOS else None
    if before is None:
        shift, share_before = measure_shift(p_values, calibration_photos=calibration_photos), TAIL
    else:
        shift, share_before = measure_shift_between(p_values, before), float(np.mean(before <= TAIL))
    share = float(np.mean(p_values <= TAIL))
    if len(p_values) < MIN_PHOTOS:
        kind: Kind = "too_few"
    elif has_moved(p_values, before, calibration_photos=calibration_photos):
        kind = "new_photos"
    elif compute_tail_significance(p_values, before, calibration_photos=calibration_photos) < SIGNIFICANCE:
        kind = "new_defects"
    else:
        kind = "like_before"
    return NightJudgement(kind, shift, tail_share=share, tail_share_before=share_before)


def has_moved(p_values: PValues, before: PValues | None, *, calibration_photos: int) -> bool:
    """Tells whether the body of the p-values, without the tail, is another than before."""
    body = select_body(p_values)
    if len(body) < MIN_PHOTOS:
        return True  # nearly every photo lies in the tail: these are not the photos that were calibrated with
    if before is not None and len(select_body(before)) >= MIN_PHOTOS:
        shift = measure_shift_between(body, select_body(before))
    else:
        above = max(1, math.ceil((1 - TAIL) * calibration_photos))
        shift = measure_shift((body - TAIL) / (1 - TAIL), calibration_photos=above)
    return shift.significance < SIGNIFICANCE and shift.distance > MIN_DISTANCE


def select_body(p_values: PValues) -> PValues:
    """Returns the p-values beyond the tail."""
    return p_values[p_values > TAIL]


def compute_tail_significance(p_values: PValues, before: PValues | None, *, calibration_photos: int) -> float:
    """Returns the probability that the tail is as full as this, or fuller, where nothing has changed."""
    seen, photos = int(np.sum(p_values <= TAIL)), len(p_values)
    if before is not None:
        tail = int(np.sum(before <= TAIL))
        table = [[seen, photos - seen], [tail, len(before) - tail]]
        return float(stats.fisher_exact(table, alternative="greater").pvalue)
    # The rate that n calibration photos give is itself drawn: Beta(l, n + 1 - l), see model.statistics.calibration.
    rank = math.floor(TAIL * (calibration_photos + 1))
    if rank == 0:
        return 1.0 if not seen else 0.0
    return float(stats.betabinom.sf(seen - 1, photos, rank, calibration_photos + 1 - rank))
