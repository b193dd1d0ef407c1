"""Whether the p-values of some photos look like those of the calibration, or like those of earlier nights.

Conformal p-values of photos like the calibration's are uniform on 1/(n+1), 2/(n+1) ... 1, but for one draw of n
calibration photos only as nearly as two samples of n and m scores agree. So n counts in every test here.

Tonight's photos are a mixture: flawless ones, whose p-values are level, and defects, whose p-values are small but not
all of them tiny; a small calibration knows no tiny ones. So defects are looked for below ``BODY``, and only what
happens beyond it, where hardly a defect lies, is laid to other photos. The tests take photos as independent of each
other: a night that is one long burst of a single asset is more alike than they expect.
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
"""p-values up to here are the tail, where defects gather."""
BODY = 0.3
"""p-values beyond here are the body, which few defects reach and a new camera moves."""
MAX_DEFECTS = 0.5
"""Where surely fewer than the rest could be flawless photos as before, it is the photos that are new."""
SIGNIFICANCE = 0.001
"""A page of a hundred categories, read every night, should cry wolf about three times a month."""
DOUBT = 0.01
"""A change is laid to other photos, not to defects, where the body is less likely than this to be as before."""
MIN_PHOTOS = 20
"""Fewer say nothing about a distribution."""
MIN_DISTANCE = 0.1
"""A body that moved less than this is no matter, however many photos show it."""
_MAX_TERMS = 1000

Kind = Literal["too_few", "like_before", "new_photos", "new_defects"]
WORDS: dict[Kind, str] = {
    "too_few": "too few photos to tell",
    "like_before": "looks like before",
    "new_photos": "looks like new photos",
    "new_defects": "looks like new defects",
}
ALARMING: tuple[Kind, ...] = ("new_photos", "new_defects")
"""Kinds of a night that is not as before."""


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

    Defects raise the count of small p-values and leave the body alone. Another camera, light or season moves the body,
    or empties it. Where both is so, it is new photos: their small p-values say nothing then.

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
    kind: Kind = "too_few"
    if len(p_values) >= MIN_PHOTOS:
        in_body = compute_body_significance(p_values, before, calibration_photos=calibration_photos)
        in_tail = compute_tail_significance(p_values, before, calibration_photos=calibration_photos, shift=shift)
        kind = name_change(in_body, in_tail)
    return NightJudgement(kind, shift, tail_share=share, tail_share_before=share_before)


def name_change(in_body: float, in_tail: float) -> Kind:
    """Names what has changed, by the significance of the body's change and of the tail's, corrected for their tests.

    Whether something has changed is decided strictly. Once it has, a body that is unlikely to be as before is enough
    to call it new photos, for alarms must not be trusted on a doubt.
    """
    if min(in_body, in_tail) >= SIGNIFICANCE / 2:
        return "like_before"
    return "new_photos" if in_body < DOUBT else "new_defects"


def compute_body_significance(p_values: PValues, before: PValues | None, *, calibration_photos: int) -> float:
    """Returns the probability of a body so different, so full or so empty, where nothing but defects has changed."""
    reference = place_calibration(calibration_photos) if before is None else before
    body, known = p_values[p_values > BODY], reference[reference > BODY]
    emptiness = compute_emptiness(p_values, before, calibration_photos=calibration_photos)
    fullness = compute_fill(p_values, before, cut=BODY, calibration_photos=calibration_photos, less=True)
    found = [emptiness, fullness, 1.0, 1.0]
    if len(body) and len(known) and (moved := measure_shift_between(body, known)).distance > MIN_DISTANCE:
        found[2:] = [moved.significance, float(stats.mannwhitneyu(body, known, method="asymptotic").pvalue)]
    return min(1.0, len(found) * min(found))


def compute_tail_significance(
    p_values: PValues, before: PValues | None, *, calibration_photos: int, shift: Shift
) -> float:
    """Returns the probability of so many small p-values, in the tail or as a whole, where nothing has changed."""
    fill = compute_fill(p_values, before, cut=TAIL, calibration_photos=calibration_photos)
    as_a_whole = shift.significance if shift.distance > MIN_DISTANCE else 1.0
    return min(1.0, 2 * min(fill, as_a_whole))


def place_calibration(calibration_photos: int) -> PValues:
    """Places the n calibration scores among p-values, ascending: a photo of p-value j / (n + 1) has j - 1 below it."""
    return (np.arange(1, calibration_photos + 1) + 0.5) / (calibration_photos + 1)


def compute_fill(
    p_values: PValues, before: PValues | None, *, cut: float, calibration_photos: int, less: bool = False
) -> float:
    """Returns the probability that as many p-values lie up to ``cut``, or more (less), where nothing has changed."""
    seen, photos = int(np.sum(p_values <= cut)), len(p_values)
    if before is not None:
        known = int(np.sum(before <= cut))
        table = [[seen, photos - seen], [known, len(before) - known]]
        return float(stats.fisher_exact(table, alternative="less" if less else "greater").pvalue)
    # The rate that n calibration photos give is itself drawn: Beta(l, n + 1 - l), see model.statistics.calibration.
    rank = math.floor(cut * (calibration_photos + 1))
    if rank == 0:
        return 1.0 if less or not seen else 0.0
    return compute_beta_binomial(seen, photos, rank, calibration_photos + 1 - rank, less=less)


def compute_emptiness(p_values: PValues, before: PValues | None, *, calibration_photos: int) -> float:
    """Returns the probability of a body as empty as this, or emptier, where ``MAX_DEFECTS`` of the photos are defects.

    No defect is in the body then; more would be other photos.
    """
    seen, flawless = int(np.sum(p_values > BODY)), round(len(p_values) * (1 - MAX_DEFECTS))
    if seen >= flawless:
        return 1.0
    if before is not None:
        known = int(np.sum(before > BODY))
        table = [[seen, flawless - seen], [known, len(before) - known]]
        return float(stats.fisher_exact(table, alternative="less").pvalue)
    rank = math.floor(BODY * (calibration_photos + 1))
    return compute_beta_binomial(seen, flawless, calibration_photos + 1 - rank, max(1, rank), less=True)


def compute_beta_binomial(seen: int, photos: int, first: int, second: int, *, less: bool) -> float:
    """Returns P(X >= seen), or P(X <= seen), of X photos at a rate that is drawn from Beta(first, second).

    Of many photos by the Beta distribution of the same mean and variance, for scipy adds up all terms.
    """
    if photos <= _MAX_TERMS:
        drawn = stats.betabinom(photos, first, second)
        return float(drawn.cdf(seen) if less else drawn.sf(seen - 1))
    scale = photos / (photos + first + second)
    shares = stats.beta(first * scale, second * scale)
    return float(shares.cdf(seen / photos) if less else shares.sf(seen / photos))
