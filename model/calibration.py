"""Split-conformal p-values: a raw score becomes "how rare is this among flawless photos".

A detector's raw score has no unit, and two detectors' scores cannot be compared. Held-out flawless photos give it one:
the conformal p-value of a photo is the share of the calibration scores (the photo itself counted in) that are at least
as high as its own. Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", Springer 2005; for outlier
detection Bates, Candes, Lei, Romano & Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023,
arXiv 2104.08279.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator


class Calibration(BaseModel):
    """Scores of flawless photos that took no part in training, and what they let us promise.

    The guarantee: if a flawless photo is exchangeable with the calibration photos (same cameras, sites, season: any
    order of them equally likely), then P(p_value <= rate) <= rate for every rate in (0, 1), for any detector and any
    distribution. The probability is marginal, over the photo *and* the draw of the calibration photos. For the
    calibration set in hand, the long-run false-alarm rate is itself random: with n scores without ties it is
    Beta(k, n + 1 - k) distributed, k = floor(rate * (n + 1)) (Vovk 2012, arXiv 1209.2673; Bates et al. 2023).
    ``false_alarm_interval`` says how far it may lie from the rate asked for. Nothing is promised for photos that are
    not exchangeable with these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: tuple[float, ...] = Field(min_length=1, description="held-out flawless scores, finite, kept ascending")

    @field_validator("scores")
    @classmethod
    def _finite_and_ascending(cls, scores: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [score for score in scores if not math.isfinite(score)]
        if wrong:
            raise ValueError(f"calibration scores must be finite, got {wrong[0]} among {len(scores)}")
        return tuple(sorted(scores))

    @property
    def smallest_rate(self) -> float:
        """The lowest false-alarm rate this sample can hold, 1 / (n + 1), also the lowest p-value it can give."""
        return 1 / (len(self.scores) + 1)

    def p_values(self, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
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

    def threshold(self, false_alarm_rate: float) -> float | None:
        """The raw score above which a photo is reported at ``false_alarm_rate``.

        Exactly equivalent to the p-value, ties included: ``score > threshold`` if and only if
        ``p_value(score) <= false_alarm_rate``.

        Args:
            false_alarm_rate: share of flawless photos that may be reported, in (0, 1).

        Returns:
            One of the calibration scores, or None where the sample is smaller than
            ``smallest_sample(false_alarm_rate)``: then no score is rare enough and nothing may be reported.
        """
        reportable = _reportable_ranks(len(self.scores), false_alarm_rate)
        return self.scores[len(self.scores) - reportable] if reportable else None

    def false_alarm_interval(self, false_alarm_rate: float, *, confidence: float = 0.9) -> tuple[float, float]:
        """Where the long-run false-alarm rate of this very calibration set lies, from its Beta distribution.

        Args:
            false_alarm_rate: rate given to ``threshold``, in (0, 1).
            confidence: probability of the central interval, in (0, 1).

        Returns:
            Lower and upper end, (0, 0) where nothing can be reported. Ties make the true rate lower, never higher.
        """
        n = len(self.scores)
        k = _reportable_ranks(n, false_alarm_rate)
        if k == 0:
            return 0.0, 0.0
        from scipy.stats import beta  # over a second to import, which scoring processes need not spend

        low, high = beta.interval(confidence, k, n + 1 - k)
        return float(low), float(high)


def smallest_sample(false_alarm_rate: float) -> int:
    """The fewest calibration scores that can hold ``false_alarm_rate``, in (0, 1): 19 for 0.05, 99 for 0.01."""
    _check_rate(false_alarm_rate)
    n = max(1, math.floor(1 / false_alarm_rate) - 2)
    while 1 / (n + 1) > false_alarm_rate:
        n += 1
    return n


def _reportable_ranks(n: int, false_alarm_rate: float) -> int:
    """How many of the n + 1 attainable p-values are <= the rate: floor(rate * (n + 1)), free of its rounding error."""
    _check_rate(false_alarm_rate)
    attainable = np.arange(1, n + 2) / (n + 1)
    return int(np.searchsorted(attainable, false_alarm_rate, side="right"))


def _check_rate(false_alarm_rate: float) -> None:
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate must lie between 0 and 1, both excluded, got {false_alarm_rate}")
