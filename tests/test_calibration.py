"""Conformal p-values: the law that ties them to thresholds, and the false-alarm rate they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom, kstest

from model.calibration import Calibration, smallest_sample

# Few distinct values, so that ties are the rule: this is where a threshold and a p-value can come apart.
_TIED = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=60)
_RATES = st.one_of(
    st.floats(1e-4, 0.999),
    # Rates that are attainable p-values: the comparison with <= is decided by the last bit.
    st.tuples(st.integers(1, 60), st.integers(1, 60)).filter(lambda f: f[0] < f[1]).map(lambda f: f[0] / f[1]),
)


@given(_TIED, st.integers(-1, 7).map(float))
def test_a_p_value_counts_the_calibration_scores_at_least_as_high(scores: list[float], score: float) -> None:
    expected = (1 + sum(known >= score for known in scores)) / (len(scores) + 1)
    assert Calibration(scores=tuple(scores)).p_values(np.array([score])).tolist() == [expected]


@given(_TIED, _RATES)
def test_a_score_is_above_the_threshold_iff_its_p_value_is_within_the_rate(scores: list[float], rate: float) -> None:
    calibration = Calibration(scores=tuple(scores))
    asked = np.concatenate([np.arange(-1, 8, 0.5), np.nextafter(scores, np.inf), [-np.inf, np.inf]])

    threshold = calibration.threshold(rate)

    reported = np.zeros(asked.size, dtype=bool) if threshold is None else asked > threshold
    assert reported.tolist() == (calibration.p_values(asked) <= rate).tolist()


@given(_RATES)
def test_the_smallest_sample_has_a_threshold_and_one_score_fewer_has_none(rate: float) -> None:
    n = smallest_sample(rate)
    assert Calibration(scores=(0.0,) * n).threshold(rate) is not None
    assert n == 1 or Calibration(scores=(0.0,) * (n - 1)).threshold(rate) is None


@pytest.mark.parametrize(("rate", "count"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999)])
def test_the_smallest_samples_of_round_rates_are_known(rate: float, count: int) -> None:
    assert smallest_sample(rate) == count


def test_p_values_of_exchangeable_scores_are_uniform() -> None:
    # One p-value per fresh calibration set, so that the p-values are independent; 999 scores make the steps of 1/1000
    # finer than what a test on 2,000 values can see (the 1 % bound of the statistic is 0.036).
    draws = np.random.default_rng(0).gumbel(size=(2000, 1000))
    p_values = [Calibration(scores=tuple(row[1:])).p_values(row[:1])[0] for row in draws]
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_the_measured_false_alarm_rate_is_the_one_asked_for() -> None:
    # Marginal guarantee: again one photo per fresh calibration set, else all photos would share one Beta-distributed
    # rate (below) and no binomial interval would hold. 0.05 * (59 + 1) is whole: the rate is 0.05, not just at most.
    draws = np.random.default_rng(1).gumbel(size=(4000, 60))
    thresholds = [Calibration(scores=tuple(row[1:])).threshold(0.05) for row in draws]
    alarms = sum(row[0] > threshold for row, threshold in zip(draws, thresholds, strict=True))
    low, high = binom.interval(0.99, 4000, 0.05)
    assert low <= alarms <= high


def test_the_rate_given_one_calibration_set_falls_in_its_beta_interval_as_often_as_said() -> None:
    # Uniform scores: the true rate above a threshold t is 1 - t, no second sample needed. Few scores and a high rate,
    # because there a Beta distribution that is off by one is far off.
    calibrations = [Calibration(scores=tuple(row)) for row in np.random.default_rng(2).uniform(size=(2000, 4))]
    low, high = calibrations[0].false_alarm_interval(0.4, confidence=0.9)
    thresholds = np.array([calibration.threshold(0.4) for calibration in calibrations], dtype=np.float64)
    fewest, most = binom.interval(0.99, 2000, 0.05)
    assert fewest <= np.sum(1 - thresholds < low) <= most
    assert fewest <= np.sum(1 - thresholds > high) <= most


def test_a_sample_too_small_for_the_rate_promises_no_alarms() -> None:
    calibration = Calibration(scores=(1.0,) * 18)
    assert calibration.threshold(0.05) is None
    assert calibration.false_alarm_interval(0.05) == (0.0, 0.0)
    assert calibration.smallest_rate == 1 / 19


def test_scores_are_kept_ascending_whatever_order_they_came_in() -> None:
    assert Calibration(scores=(3.0, 1.0, 2.0)) == Calibration(scores=(1.0, 2.0, 3.0))
    assert Calibration(scores=(3.0, 1.0, 2.0)).scores == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("scores", [(), (1.0, float("nan")), (float("inf"), 1.0)])
def test_an_empty_or_not_finite_calibration_is_refused(scores: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="scores"):
        Calibration(scores=scores)


def test_a_nan_score_has_no_p_value() -> None:
    with pytest.raises(ValueError, match="1 NaN of 2"):
        Calibration(scores=(1.0,)).p_values(np.array([0.5, np.nan]))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="false_alarm_rate"):
        Calibration(scores=(1.0,)).threshold(rate)
