"""Many photos at once: how many alarms are false, how many photos are defective, and which list can be trusted.

A false-alarm rate speaks of one photo. Of ten million flawless photos 1 % is a hundred thousand alarms. What the alarms
of a run are worth follows from all of its p-values together. Those of flawless photos are spread evenly over (0, 1],
so the photos with large p-values tell how many are flawless (Storey, Journal of the Royal Statistical Society B 2002).
Benjamini & Hochberg (ibid. 1995) find the longest list whose expected share of false ones is at most q; conformal
p-values of one calibration depend on each other in a way that leaves this true (Bates et al., Annals of Statistics
2023, arXiv 2104.08279).

Everything here works on counts of equal p-values. There are n + 1 at most, however many photos.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

Counts = Mapping[float, int]
"""p-value -> photos that have it."""
Q_LEVELS = (0.05, 0.1, 0.2)
"""Shares of false ones in a list that are reported."""
_TAIL = 0.0125
"""Of each of two bounds at either end: together they are wrong in at most 5 %."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AlarmEstimates:
    """What the alarms of one or more detectors are worth.

    Attributes:
        photos: scored photos.
        alarms: those of them that were reported.
        expected_false_alarms: false ones among them on average, if all photos were flawless.
        defective: photos that are not like the calibration photos. An estimate from below: defects with large p-values
            are not seen.
        false_alarms: false ones among the alarms, with as many flawless photos as ``defective`` leaves.
    """

    photos: int
    alarms: int
    expected_false_alarms: float
    defective: Estimate
    false_alarms: Estimate

    @property
    def defective_share(self) -> Estimate:
        """Share of the photos that are defective, in [0, 1]."""
        return _divide(self.defective, self.photos)

    @property
    def true_alarm_share(self) -> Estimate:
        """Share of the alarms that are true, in [0, 1]."""
        false = _divide(self.false_alarms, self.alarms)
        return Estimate(1 - false.value, 1 - false.high, 1 - false.low)


@dataclass(frozen=True)
class TrustedList:
    """The longest list of photos with an expected share of at most ``q`` false ones (Benjamini-Hochberg).

    Attributes:
        q: in (0, 1).
        photos: in the list; 0 where no list is short of false ones.
        p_value: the list has all photos with this one or a smaller one; None where it is empty.
        photos_needed: calibration photos, at least, for a list that is not empty; None where there is one, or where
            no photo lies beyond all calibration photos.
    """

    q: float
    photos: int
    p_value: float | None
    photos_needed: int | None


def estimate_alarms(counts: Counts, *, calibration_photos: int, ranks: int, alarms: int) -> AlarmEstimates:
    """Estimates what the alarms of one detector are worth.

    The intervals have two parts: chance among the photos (Clopper-Pearson), and chance in the draw of the calibration
    photos, whose share of flawless photos below a p-value is itself random (Beta, see
    `model.statistics.calibration.Calibration`). With many photos the second is what counts.

    Args:
        counts: of the detector's scored photos.
        calibration_photos: n >= 1.
        ranks: attainable p-values that are reported, see `model.statistics.calibration.count_ranks`.
        alarms: photos that were reported.
    """
    photos, n = sum(counts.values()), calibration_photos
    flawless = estimate_flawless(counts, calibration_photos=n)
    rate, low, high = ranks / (n + 1), *_bound_rate(ranks, n)
    false = Estimate(*(min(part, alarms) for part in (flawless.value * rate, flawless.low * low, flawless.high * high)))
    defective = Estimate(photos - flawless.value, photos - flawless.high, photos - flawless.low)
    return AlarmEstimates(photos, alarms, photos * rate, defective, false)


def estimate_flawless(counts: Counts, *, calibration_photos: int) -> Estimate:
    """Estimates how many photos are flawless, from those in the upper half of p-values (Storey 2002, lambda 1/2)."""
    n, photos = calibration_photos, sum(counts.values())
    half = (n + 1) // 2
    upper = sum(count for p_value, count in counts.items() if round(p_value * (n + 1)) > half)
    low = photos * float(betaincinv(upper, photos - upper + 1, _TAIL)) if upper else 0.0
    high = photos * float(betaincinv(upper + 1, photos - upper, 1 - _TAIL)) if upper < photos else float(photos)
    least, most = _bound_rate(n + 1 - half, n)
    value = upper / (1 - half / (n + 1))
    return Estimate(*(min(part, float(photos)) for part in (value, low / most, high / least)))


def add_estimates(found: Sequence[AlarmEstimates]) -> AlarmEstimates:
    """Adds the estimates of detectors whose calibrations were drawn independently: errors add as their squares do."""
    return AlarmEstimates(
        sum(one.photos for one in found),
        sum(one.alarms for one in found),
        sum(one.expected_false_alarms for one in found),
        _add([one.defective for one in found]),
        _add([one.false_alarms for one in found]),
    )


def compute_q_values(counts: Iterable[Counts]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Computes Benjamini-Hochberg q-values of all photos of some detectors together.

    Returns:
        (L,) p-values that occur, ascending, and the (L,) q-value of each, in (0, 1]: the smallest share of false ones
        that a list with this photo is expected to have.
    """
    levels, sizes = _merge(counts)
    ratios = levels * sizes.sum() / np.cumsum(sizes) if len(levels) else levels
    return levels, np.minimum(np.minimum.accumulate(ratios[::-1])[::-1], 1.0)


def list_trusted(counts: Sequence[Counts], *, calibration_photos: Sequence[int]) -> list[TrustedList]:
    """Lists for each of `Q_LEVELS` which photos can be trusted, or how many calibration photos that needs.

    Args:
        counts: of each detector's photos.
        calibration_photos: of each detector.
    """
    levels, q_values = compute_q_values(counts)
    photos = sum(sum(one.values()) for one in counts)
    beyond = sum(
        count
        for one, n in zip(counts, calibration_photos, strict=True)
        for p_value, count in one.items()
        if round(p_value * (n + 1)) == 1
    )
    found = []
    for q in Q_LEVELS:
        within = levels[q_values <= q]
        cut = float(within[-1]) if len(within) else None
        listed = sum(count for one in counts for p, count in one.items() if cut is not None and p <= cut)
        needed = math.ceil(photos / (q * beyond)) - 1 if cut is None and beyond else None
        found.append(TrustedList(q, listed, cut, needed))
    return found


def _merge(counts: Iterable[Counts]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Returns the p-values of all detectors, ascending, and how many photos have each."""
    pairs = [pair for one in counts for pair in one.items()]
    p_values, sizes = np.array([p for p, _ in pairs], np.float64), np.array([size for _, size in pairs], np.int64)
    levels, places = np.unique(p_values, return_inverse=True)
    return levels, np.bincount(places, weights=sizes, minlength=len(levels)).astype(np.int64)


def _bound_rate(ranks: int, n: int) -> tuple[float, float]:
    """Bounds the share of flawless photos with one of ``ranks`` of n + 1 p-values: Beta(ranks, n + 1 - ranks)."""
    if ranks == 0:
        return 0.0, 0.0
    low, high = betaincinv(ranks, n + 1 - ranks, (_TAIL, 1 - _TAIL))
    return float(low), float(high)


def _add(parts: Sequence[Estimate]) -> Estimate:
    value = sum(part.value for part in parts)
    down = math.hypot(*(part.value - part.low for part in parts))
    up = math.hypot(*(part.high - part.value for part in parts))
    return Estimate(value, max(0.0, value - down), value + up)


def _divide(part: Estimate, whole: int) -> Estimate:
    """Returns shares of ``whole``; 0 where it is none."""
    low, value, high = (min(1.0, max(0.0, one / whole)) if whole else 0.0 for one in (part.low, part.value, part.high))
    return Estimate(value, low, high)
