"""Conformal p-values: a raw score becomes "how rare is this among flawless photos".

A detector's raw score has no unit, and two detectors' scores cannot be compared. Held-out flawless photos give it one:
the conformal p-value of a photo is the share of the calibration scores (the photo itself counted in) that are at least
as high as its own. Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", Springer 2005; for outlier
detection Bates, Candes, Lei, Romano & Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
arXiv 2104.08279.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Calibration(BaseModel):
    """Scores of flawless photos that took no part in the training of the detector that scored them.

    **Method "split"**: this very detector scored photos that it was not trained on. The guarantee: if a flawless photo
    is exchangeable with the calibration photos (same cameras, sites, season: any order of them equally likely), then
    P(p_value <= rate) <= rate for every rate in (0, 1), for any detector and any distribution. The probability is
    marginal, over the photo *and* the draw of the calibration photos. For the calibration set in hand, the long-run
    false-alarm rate is itself random: with n scores without ties it is Beta(k, n + 1 - k) distributed,
    k = floor(rate * (n + 1)) (Vovk 2012, arXiv 1209.2673; Bates et al. 2023). ``estimate_false_alarm_interval`` says
    how far it may lie from the rate asked for, and ``find_threshold(rate, confidence=...)`` keeps it below with
    that probability.

    **Method "cross"**, where photos are too few to set some aside: one detector per fold, trained without the fold,
    scored it (see ``from_folds``), and a last detector, trained on all photos, does the scoring. *Nothing is guaranteed
    for finite samples*: the rate holds in so far as leaving a fold out does not change the scores (it can fail
    altogether, as for the jackknife in Barber, Candes, Ramdas & Tibshirani 2021, arXiv 1905.02928). Only scoring with
    all K fold detectors would have a guarantee, and a weaker one: ``cross_conformal_bound``.

    Nothing is promised for photos that are not exchangeable with these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: tuple[float, ...] = Field(min_length=1, description="held-out flawless scores, finite, kept ascending")
    method: Literal["split", "cross"] = Field("split", description="what the scores are: see the class")
    folds: int | None = Field(None, ge=2, description="number of folds of method cross")

    @field_validator("scores")
    @classmethod
    def _finite_and_ascending(cls, scores: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [score for score in scores if not math.isfinite(score)]
        if wrong:
            raise ValueError(f"calibration scores must be finite, got {wrong[0]} among {len(scores)}")
        return tuple(sorted(scores))

    @model_validator(mode="after")
    def _folds_belong_to_cross(self) -> Self:
        if (self.folds is not None) != (self.method == "cross") or (self.folds or 0) > len(self.scores):
            raise ValueError(
                f"method cross needs 2 to {len(self.scores)} folds, one score each at least, and split none; got "
                f"method {self.method} and folds {self.folds}"
            )
        return self

    @classmethod
    def from_folds(cls, held_out: Sequence[Sequence[float]]) -> Calibration:
        """Method "cross" from the scores of K folds (Vovk 2015, "Cross-conformal predictors", arXiv 1208.0806).

        Args:
            held_out: K >= 2 folds that differ by at most one photo in size; fold k holds the scores of its photos by
                a detector that was trained on the photos of all the other folds and set up like the one that scores.

        Raises:
            ValueError: folds of unequal size: a fold's detector then learned from far fewer photos than the others'.
        """
        sizes = [len(fold) for fold in held_out]
        if len(sizes) < 2 or max(sizes) - min(sizes) > 1:
            raise ValueError(f"needed at least 2 folds of equal size, give or take one photo, got sizes {sizes}")
        return cls(scores=tuple(score for fold in held_out for score in fold), method="cross", folds=len(sizes))

    @property
    def min_rate(self) -> float:
        """The lowest false-alarm rate this sample can hold, 1 / (n + 1), also the lowest p-value it can give."""
        return 1 / (len(self.scores) + 1)

    def compute_p_values(self, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Conformal p-values, (1 + number of calibration scores >= score) / (n + 1).

        Args:
            scores: (N,) raw scores, higher is more anomalous; infinite scores are allowed.

        Returns:
            (N,) p-values in [1 / (n + 1), 1], low is anomalous.

        Raises:
            ValueError: a score is NaN: it has no rank, and any p-value for it would be a lie.
        """
        asked = np.asarray(scores, dtype=np.float64)
        if np.isnan(asked).any():
            raise ValueError(f"p-values need scores with a rank, got {int(np.isnan(asked).sum())} NaN of {asked.size}")
        n = len(self.scores)
        at_least_as_high = n - np.searchsorted(np.asarray(self.scores), asked, side="left")
        return np.asarray((1 + at_least_as_high) / (n + 1), dtype=np.float64)

    def find_threshold(self, false_alarm_rate: float, *, confidence: float | None = None) -> float | None:
        """The raw score above which a photo is reported at ``false_alarm_rate``.

        Without ``confidence`` exactly equivalent to the p-value, ties included: ``score > threshold`` if and only if
        ``p_value(score) <= false_alarm_rate``. The rate then holds on average over calibration sets, and about every
        second set exceeds it. With ``confidence`` it is a tolerance bound (Wilks 1941; Vovk 2012, arXiv 1209.2673): the
        lowest of the calibration scores whose long-run false-alarm rate is at most ``false_alarm_rate`` with a
        probability of at least ``confidence`` over the draw of the calibration photos, exact for any distribution.

        Args:
            false_alarm_rate: share of flawless photos that may be reported, in (0, 1).
            confidence: probability with which this very calibration set holds the rate, in (0, 1).

        Returns:
            One of the calibration scores, or None where the sample is smaller than
            ``find_min_sample_size`` says: then no score is rare enough and nothing may be reported.

        Raises:
            ValueError: ``confidence`` with method "cross", which has no such bound.
        """
        n = len(self.scores)
        if confidence is None:
            reportable = _reportable_ranks(n, false_alarm_rate)
        else:
            self._need_split()
            reportable = _confident_ranks(n, false_alarm_rate, confidence=confidence)
        return self.scores[n - reportable] if reportable else None

    def estimate_false_alarm_interval(self, false_alarm_rate: float, *, confidence: float = 0.9) -> tuple[float, float]:
        """Where the long-run false-alarm rate of this very calibration set lies, from its Beta distribution.

        Args:
            false_alarm_rate: rate given to ``find_threshold`` (without confidence), in (0, 1).
            confidence: probability of the central interval, in (0, 1).

        Returns:
            Lower and upper end, (0, 0) where nothing can be reported. Ties make the true rate lower, never higher.

        Raises:
            ValueError: method "cross", for which the distribution is not known.
        """
        self._need_split()
        n = len(self.scores)
        k = _reportable_ranks(n, false_alarm_rate)
        if k == 0:
            return 0.0, 0.0
        from scipy.stats import beta  # over a second to import, which scoring processes need not spend

        low, high = beta.interval(confidence, k, n + 1 - k)
        return float(low), float(high)

    def _need_split(self) -> None:
        if self.method != "split":
            raise ValueError(
                f"the false-alarm rate of one calibration set has a known distribution for method split, got "
                f"{self.method}: recalibrate on photos that the detector was not trained on"
            )


def find_min_sample_size(false_alarm_rate: float, *, confidence: float | None = None) -> int:
    """The fewest calibration scores that can hold ``false_alarm_rate``, in (0, 1): 19 for 0.05, 99 for 0.01.

    With ``confidence``, in (0, 1), see ``Calibration.threshold``: 45 for 0.05 at 0.9, 230 for 0.01 at 0.9.
    """
    _check_share("false_alarm_rate", false_alarm_rate)
    if confidence is None:
        n = max(1, math.floor(1 / false_alarm_rate) - 2)
        while 1 / (n + 1) > false_alarm_rate:
            n += 1
        return n
    _check_share("confidence", confidence)
    n = max(1, math.floor(math.log1p(-confidence) / math.log1p(-false_alarm_rate)) - 1)
    while _confident_ranks(n, false_alarm_rate, confidence=confidence) == 0:
        n += 1
    return n


def describe_shortage(photos: int, *, false_alarm_rate: float) -> str | None:
    """Says in words that a calibration set is too small for a rate, photos < 1 / rate - 1; None where it is not.

    Args:
        photos: calibration photos there are.
        false_alarm_rate: rate asked for, in (0, 1).
    """
    needed = find_min_sample_size(false_alarm_rate)
    if photos >= needed:
        return None
    return (
        f"{photos} held-out photos cannot support a false-alarm rate of {false_alarm_rate:g}: {needed} are needed; "
        "with fewer no photo is ever flagged"
    )


def cross_conformal_bound(false_alarm_rate: float, *, photos: int, folds: int) -> float:
    """The most that P(p_value <= rate) can be when *all K fold detectors* score: 2 * rate and a term for the folds.

    The p-value is (1 + the number of calibration scores at least as high as the photo's score by the detector of their
    fold) / (n + 1). Its bound is 2 rate + min(2 (1 - rate) (K - 1) / (n + K), (1 - K / n) / (K + 1)), so exactly 2 rate
    for K = n (the jackknife+). Vovk 2015, arXiv 1208.0806; Barber et al. 2021, arXiv 1905.02928, theorem 4; for any
    score Gupta, Kuchibhotla & Ramdas 2022, arXiv 1910.10562, and the first term Gasparin & Ramdas 2025, arXiv
    2503.01495.

    Args:
        false_alarm_rate: in (0, 1).
        photos: n, calibration photos in all folds.
        folds: K, of equal size.

    Returns:
        A probability, 1 where nothing is promised.
    """
    _check_share("false_alarm_rate", false_alarm_rate)
    of_folds = min(2 * (1 - false_alarm_rate) * (folds - 1) / (photos + folds), (1 - folds / photos) / (folds + 1))
    return min(1.0, 2 * false_alarm_rate + of_folds)


def _reportable_ranks(n: int, false_alarm_rate: float) -> int:
    """How many of the n + 1 attainable p-values are <= the rate: floor(rate * (n + 1)), free of its rounding error."""
    _check_share("false_alarm_rate", false_alarm_rate)
    attainable = np.arange(1, n + 2) / (n + 1)
    return int(np.searchsorted(attainable, false_alarm_rate, side="right"))


def _confident_ranks(n: int, false_alarm_rate: float, *, confidence: float) -> int:
    """The most ranks k with P(Beta(k, n + 1 - k) <= rate) >= confidence: the rate above the k-th highest score."""
    _check_share("false_alarm_rate", false_alarm_rate)
    _check_share("confidence", confidence)
    from scipy.special import betainc  # scipy.stats would take over a second to import

    k = np.arange(1, n + 1)
    return int(np.count_nonzero(betainc(k, n + 1 - k, false_alarm_rate) >= confidence))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, both excluded, got {value}")
