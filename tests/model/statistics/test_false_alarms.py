"""The realised false-alarm rate: its interval, and whether it agrees with what was promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from model.statistics.calibration import (
    Calibration,
    describe_guarantee,
    find_min_rate,
    find_min_sample_size,
)
from model.statistics.false_alarms import RealisedRate, describe_realised_rate, make_promise, measure_false_alarms


def _measure(
    reported: int, *, flawless: int = 100, photos: int = 200, confidence: float | None = None
) -> RealisedRate | None:
    promise = make_promise(Calibration(scores=tuple(range(photos))), 0.05, confidence=confidence)
    scores = np.where(np.arange(flawless) < reported, photos + 1.0, -1.0)
    return measure_false_alarms(scores, promise)


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    found = _measure(7)
    assert found is not None
    assert (found.flawless, found.reported, found.rate) == (100, 7, 0.07)
    assert found.low == pytest.approx(beta.ppf(0.025, 7, 94))
    assert found.high == pytest.approx(beta.ppf(0.975, 8, 93))


@pytest.mark.parametrize(("reported", "is_kept"), [(0, True), (5, True), (9, True), (14, False), (89, False)])
def test_as_many_false_alarms_as_chance_explains_agree_with_the_promise(reported: int, is_kept: bool) -> None:
    found = _measure(reported)
    assert found is not None
    assert found.is_kept is is_kept


def test_few_calibration_photos_explain_more_false_alarms_than_many() -> None:
    few, many = _measure(14, photos=25), _measure(14, photos=2000)
    assert few is not None
    assert many is not None
    assert (few.is_kept, many.is_kept) == (True, False)


@pytest.mark.parametrize("confidence", [None, 0.9])
@pytest.mark.slow
def test_a_promise_that_holds_is_called_broken_in_at_most_its_share_of_the_cases(confidence: float | None) -> None:
    rng, broken = np.random.default_rng(0), 0
    for _ in range(2000):
        promise = make_promise(Calibration(scores=tuple(rng.normal(size=60))), 0.05, confidence=confidence)
        found = measure_false_alarms(rng.normal(size=150), promise)
        assert found is not None
        broken += not found.is_kept
    assert broken / 2000 < 0.025 + 3 * (0.025 / 2000) ** 0.5


def test_a_rate_below_the_promise_is_never_called_broken() -> None:
    found = _measure(4, confidence=0.999)
    assert found is not None
    assert found.is_kept


def test_nothing_is_measured_where_nothing_can_be_reported() -> None:
    assert _measure(3, photos=18) is None
    assert _measure(0, flawless=0) is None


def test_words_say_both_rates_and_whether_they_agree() -> None:
    promise = make_promise(Calibration(scores=tuple(range(200))), 0.05)
    kept, broken = _measure(5), _measure(89)
    assert kept is not None
    assert broken is not None
    said = describe_realised_rate(kept, promise)
    assert said == (
        "5 of 100 flawless photos reported, 5.0% [1.6%, 11.3%], promised 0.05 by 200 calibration photos: they agree"
    )
    assert "MORE THAN PROMISED" in describe_realised_rate(broken, promise)


@pytest.mark.parametrize("confidence", [None, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("photos", [1, 19, 60, 229])
def test_the_smallest_rate_is_where_a_threshold_begins(photos: int, confidence: float | None) -> None:
    calibration, rate = Calibration(scores=tuple(range(photos))), find_min_rate(photos, confidence=confidence)
    assert calibration.find_threshold(rate * 1.0001, confidence=confidence) is not None
    assert calibration.find_threshold(rate * 0.999, confidence=confidence) is None
    assert find_min_sample_size(rate * 1.0001, confidence=confidence) <= photos


def test_a_guarantee_says_what_is_promised_or_what_is_missing() -> None:
    assert describe_guarantee(99, false_alarm_rate=0.01, confidence=None) == (
        "of flawless photos at most 0.01 are reported, on average over calibration sets (99 calibration photos, "
        "smallest rate 1.00%)"
    )
    assert "45 are needed" in describe_guarantee(44, false_alarm_rate=0.05, confidence=0.9)
