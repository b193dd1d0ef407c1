"""Conformal p-values: a raw score becomes "how rare is this among flawless photos".

A detector's raw score has no unit, and scores of two detectors cannot be compared. Held-out flawless photos give it
one. The conformal p-value of a photo is the share of calibration scores that are at least as high as its own; the
photo itself is counted in. See Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", Springer 2005.
For outlier detection see Bates, Candes, Lei, Romano & Sesia, "Testing for outliers with conformal p-values", Annals of
Statistics 2023, arXiv 2104.08279.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.special import betainc, betaincinv  # scipy.stats has them too, but takes over a second to import

MAX_CHOSEN_RATE = 0.05
"""Largest false-alarm rate that `choose_false_alarm_rate` takes."""


class Calibration(BaseModel):
    """Scores of flawless photos that took no part in the training of the detector that scored them.

    The guarantee (split-conformal): take a flawless photo that is exchangeable with the calibration photos, which means
    the same cameras, sites and season, so that any order of them is equally likely. Then P(p_value <= rate) <= rate
    for every rate in (0, 1), any detector and any distribution. Nothing is promised for other photos.

    The probability is over the photo *and* the draw of the calibration photos. The false-alarm rate of one calibration
    set is itself random: with n scores without ties it is Beta(k, n + 1 - k) distributed, k = floor(rate * (n + 1))
    (Vovk 2012, arXiv 1209.2673; Bates et al. 2023). ``estimate_false_alarm_interval`` says how far it may lie from the
    rate asked for, and ``find_threshold(rate, confidence=...)`` keeps it below with that probability.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: tuple[float, ...] = Field(min_length=1, description="held-out flawless scores, finite, kept ascending")

    @model_validator(mode="before")
    @classmethod
    def _take_old_fields(cls, given: object) -> object:
        """Files of before the first release also name the method, which was always the one of today."""
        if isinstance(given, dict) and given.get("method") == "split" and given.get("folds") is None:
            return {name: value for name, value in given.items() if name not in ("method", "folds")}
        return given

    @field_validator("scores")
    @classmethod
    def _sort_finite_scores(cls, scores: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [score for score in scores if not math.isfinite(score)]
        if wrong:
            raise ValueError(f"calibration scores must be finite, got {wrong[0]} among {len(scores)}")
        return tuple(sorted(scores))

    @property
    def min_rate(self) -> float:
        """The lowest false-alarm rate this sample can hold, 1 / (n + 1), also the lowest p-value it can give."""
        return find_min_rate(len(self.scores))

    def compute_p_values(self, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Computes conformal p-values, (1 + number of calibration scores >= score) / (n + 1).

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
        """Finds the raw score above which a photo is reported at ``false_alarm_rate``.

        Without ``confidence`` it says the same as the p-value, ties included: ``score > threshold`` if and only if
        ``p_value <= false_alarm_rate``. The rate then holds on average over calibration sets; about every second set
        exceeds it.

        With ``confidence`` it is a tolerance bound (Wilks 1941; Vovk 2012, arXiv 1209.2673): the lowest calibration
        score whose false-alarm rate is at most the one asked for, with at least this probability over the draw of the
        calibration photos. It is exact for any distribution.

        Args:
            false_alarm_rate: share of flawless photos that may be reported, in (0, 1).
            confidence: probability with which this very calibration set holds the rate, in (0, 1).

        Returns:
            One of the calibration scores. None where there are fewer than `find_min_sample_size` says: then no score
            is rare enough, and nothing may be reported.
        """
        n = len(self.scores)
        ranks = count_ranks(n, false_alarm_rate, confidence=confidence)
        return self.scores[n - ranks] if ranks else None

    def estimate_false_alarm_interval(self, false_alarm_rate: float, *, confidence: float = 0.9) -> tuple[float, float]:
        """Estimates where the false-alarm rate of this very calibration set lies, from its Beta distribution.

        Args:
            false_alarm_rate: rate given to `find_threshold` (without confidence), in (0, 1).
            confidence: probability of the central interval, in (0, 1).

        Returns:
            Lower and upper end, (0, 0) where nothing can be reported. Ties make the true rate lower, never higher.
        """
        n = len(self.scores)
        k = count_reportable_ranks(n, false_alarm_rate)
        if k == 0:
            return 0.0, 0.0
        low, high = betaincinv(k, n + 1 - k, ((1 - confidence) / 2, (1 + confidence) / 2))
        return float(low), float(high)


def find_min_sample_size(false_alarm_rate: float, *, confidence: float | None = None) -> int:
    """Finds the fewest calibration scores that can hold ``false_alarm_rate``, in (0, 1): 19 for 0.05, 99 for 0.01.

    With ``confidence``, in (0, 1), see `Calibration.find_threshold`: 45 for 0.05 at 0.9, 230 for 0.01 at 0.9.
    """
    _check_share("false_alarm_rate", false_alarm_rate)
    if confidence is None:
        n = max(1, math.floor(1 / false_alarm_rate) - 2)
        while 1 / (n + 1) > false_alarm_rate:
            n += 1
        return n
    _check_share("confidence", confidence)
    n = max(1, math.floor(math.log1p(-confidence) / math.log1p(-false_alarm_rate)) - 1)
    while count_confident_ranks(n, false_alarm_rate, confidence=confidence) == 0:
        n += 1
    return n


def find_min_rate(n: int, *, confidence: float | None = None) -> float:
    """Finds the lowest false-alarm rate that n >= 1 scores can hold: 1 / (n + 1), or with ``confidence`` more."""
    if confidence is None:
        return 1 / (n + 1)
    _check_share("confidence", confidence)
    return -math.expm1(math.log1p(-confidence) / n)


def choose_false_alarm_rate(photos: int, *, confidence: float | None = None) -> float:
    """Chooses the false-alarm rate of a detector that nobody has given one: the smallest that it supports.

    Args:
        photos: calibration photos, at least 1.
        confidence: see `Calibration.find_threshold`.

    Returns:
        At most ``MAX_CHOSEN_RATE``, also where that many photos cannot support it: then nothing is reported.
    """
    rate = find_min_rate(photos, confidence=confidence)
    while not count_ranks(photos, rate, confidence=confidence):  # rounding may have left it a trifle too low
        rate = math.nextafter(rate, 1.0)
    return min(MAX_CHOSEN_RATE, rate)


def describe_shortage(
    photos: int, *, false_alarm_rate: float, confidence: float | None = None, category: str | None = None
) -> str | None:
    """Says in words that a calibration set is too small for a rate; None where it is large enough.

    Args:
        photos: calibration photos there are.
        false_alarm_rate: rate asked for, in (0, 1).
        confidence: see `Calibration.find_threshold`.
        category: whose photos they are, where several are spoken of.
    """
    needed = find_min_sample_size(false_alarm_rate, confidence=confidence)
    if photos >= needed:
        return None
    surely = "" if confidence is None else f" with {100 * confidence:.6g}% confidence"
    smallest = format_min_rate(find_min_rate(photos, confidence=confidence))
    whose = "" if category is None else f" of {category}"
    return (
        f"{photos} held-out photos{whose} cannot support a false-alarm rate of {false_alarm_rate:g}{surely}: {needed} "
        f"are needed; with fewer no photo is ever flagged"
        + (f"; the smallest rate that they support is {smallest}" if photos else "")
    )


def format_min_rate(rate: float) -> str:
    """Formats a smallest rate in percent, rounded up to two digits: rounded down it could not be asked for."""
    return f"{math.ceil(rate * 1e4 - 1e-9) / 100:.2f}%"


def describe_guarantee(photos: int, *, false_alarm_rate: float, confidence: float | None) -> str:
    """Says in words what a number of calibration photos promises at a rate, or that they are too few."""
    shortage = describe_shortage(photos, false_alarm_rate=false_alarm_rate, confidence=confidence)
    smallest = format_min_rate(find_min_rate(photos, confidence=confidence))
    promise = describe_promise(false_alarm_rate, confidence=confidence)
    return shortage or f"{promise} ({photos} calibration photos, smallest rate {smallest})"


def describe_promise(false_alarm_rate: float, *, confidence: float | None) -> str:
    """Says in words what is promised at a rate, with or without confidence."""
    if confidence is None:
        return f"of flawless photos at most {false_alarm_rate:g} are reported, on average over calibration sets"
    return (
        f"of flawless photos at most {false_alarm_rate:g} are reported, with a probability of at least "
        f"{confidence:g} over the draw of the calibration photos"
    )


def count_ranks(n: int, false_alarm_rate: float, *, confidence: float | None = None) -> int:
    """Counts the highest of n calibration scores that lie above the threshold or at it, see `find_threshold`."""
    if confidence is None:
        return count_reportable_ranks(n, false_alarm_rate)
    return count_confident_ranks(n, false_alarm_rate, confidence=confidence)


def count_reportable_ranks(n: int, false_alarm_rate: float) -> int:
    """Counts the attainable p-values of n scores that are <= the rate: floor(rate * (n + 1)), free of rounding."""
    _check_share("false_alarm_rate", false_alarm_rate)
    attainable = np.arange(1, n + 2) / (n + 1)
    return int(np.searchsorted(attainable, false_alarm_rate, side="right"))


def count_confident_ranks(n: int, false_alarm_rate: float, *, confidence: float) -> int:
    """Counts the ranks k with P(Beta(k, n + 1 - k) <= rate) >= confidence: the rate above the k-th highest score.

    The probability falls with k, so a bisection finds the last such rank, also among billions.
    """
    _check_share("false_alarm_rate", false_alarm_rate)
    _check_share("confidence", confidence)
    return bisect_left(range(1, n + 1), x=True, key=lambda k: betainc(k, n + 1 - k, false_alarm_rate) < confidence)


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, both excluded, got {value}")
