"""The false-alarm rate that a calibration promises, and the one that flawless test photos show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom, binomtest

from model.statistics.calibration import Calibration, count_ranks

SIGNIFICANCE = 0.025
"""Probability, at most, of as many false alarms or more where the promise holds; fewer are called a broken promise."""


@dataclass(frozen=True)
class Promise:
    """What a calibration promises: report scores above ``threshold``, and few flawless photos are reported.

    Attributes:
        false_alarm_rate: rate asked for, in (0, 1).
        confidence: probability that this very calibration holds the rate; None: it holds on average over calibrations.
        photos: calibration photos.
        threshold: None where they are too few for the rate: then nothing is reported.
    """

    false_alarm_rate: float
    confidence: float | None
    photos: int
    threshold: float | None


@dataclass(frozen=True)
class RealisedRate:
    """How many flawless photos a detector reported.

    Attributes:
        flawless: flawless photos.
        reported: those of them that were reported, the false alarms.
        rate: their share.
        low: lower end of its 95 % interval (Clopper & Pearson, Biometrika 1934).
        high: upper end.
        is_kept: whether it agrees with the promise: false where it is higher, and so many false alarms have a
            probability of at most `SIGNIFICANCE` under it.
    """

    flawless: int
    reported: int
    rate: float
    low: float
    high: float
    is_kept: bool


def make_promise(calibration: Calibration, false_alarm_rate: float, *, confidence: float | None = None) -> Promise:
    """Makes the promise of a calibration at a rate, see `Calibration.find_threshold`."""
    threshold = calibration.find_threshold(false_alarm_rate, confidence=confidence)
    return Promise(false_alarm_rate, confidence, len(calibration.scores), threshold)


def measure_false_alarms(flawless: npt.NDArray[np.floating], promise: Promise) -> RealisedRate | None:
    """Measures the false-alarm rate on flawless photos that took no part in training and calibration.

    Under the promise the number of false alarms has a beta-binomial law: the rate of one calibration is itself random
    (`model.statistics.calibration.Calibration`). So few calibration photos explain more than many.

    Args:
        flawless: (N,) their scores.
        promise: of the detector.

    Returns:
        None where nothing can be reported, or there are no photos.
    """
    if promise.threshold is None or not len(flawless):
        return None
    reported, n = int((flawless > promise.threshold).sum()), promise.photos
    interval = binomtest(reported, len(flawless)).proportion_ci(0.95, method="exact")
    k = count_ranks(n, promise.false_alarm_rate, confidence=promise.confidence)
    as_many = float(betabinom.sf(reported - 1, len(flawless), k, n + 1 - k))
    return RealisedRate(
        len(flawless),
        reported,
        reported / len(flawless),
        float(interval.low),
        float(interval.high),
        reported / len(flawless) <= promise.false_alarm_rate or as_many > SIGNIFICANCE,
    )


def describe_realised_rate(found: RealisedRate, promise: Promise) -> str:
    """Says in words how many flawless photos were reported, and whether that agrees with what was promised."""
    share = f"{found.reported} of {found.flawless} flawless photos reported, {found.rate:.1%}"
    asked = (
        f"{promise.false_alarm_rate:g}"
        if promise.confidence is None
        else (f"{promise.false_alarm_rate:g} with confidence {promise.confidence:g}")
    )
    said = f"{share} [{found.low:.1%}, {found.high:.1%}], promised {asked} by {promise.photos} calibration photos"
    if found.is_kept:
        return f"{said}: they agree"
    return (
        f"{said}: MORE THAN PROMISED; these photos are not like the calibration photos, or those have near-duplicates "
        "among the training photos: recalibrate on photos like these"
    )
