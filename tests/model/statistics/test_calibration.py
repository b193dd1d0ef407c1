"""Conformal p-values: the law that ties them to thresholds, and the false-alarm rate they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import betainc
from scipy.stats import binom, kstest

from model.statistics.calibration import (
    Calibration,
    count_confident_ranks,
    count_reportable_ranks,
    describe_shortage,
    find_min_rate,
    find_min_sample_size,
    format_min_rate,
)

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
    assert Calibration(scores=tuple(scores)).compute_p_values(np.array([score])).tolist() == [expected]


@given(_TIED, _RATES)
def test_a_score_is_above_the_threshold_iff_its_p_value_is_within_the_rate(scores: list[float], rate: float) -> None:
    calibration = Calibration(scores=tuple(scores))
    asked = np.concatenate([np.arange(-1, 8, 0.5), np.nextafter(scores, np.inf), [-np.inf, np.inf]])

    threshold = calibration.find_threshold(rate)

    reported = np.zeros(asked.size, dtype=bool) if threshold is None else asked > threshold
    assert reported.tolist() == (calibration.compute_p_values(asked) <= rate).tolist()


@pytest.mark.slow
@given(_RATES)
def test_the_smallest_sample_has_a_threshold_and_one_score_fewer_has_none(rate: float) -> None:
    n = find_min_sample_size(rate)
    assert Calibration(scores=(0.0,) * n).find_threshold(rate) is not None
    assert n == 1 or Calibration(scores=(0.0,) * (n - 1)).find_threshold(rate) is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=200), st.floats(0.001, 0.6), st.floats(0.05, 0.99))
def test_a_confident_threshold_is_the_lowest_score_whose_rate_holds_with_that_probability(
    scores: list[float], rate: float, confidence: float
) -> None:
    # The k-th highest of n scores holds the rate iff at least k of n draws lie in the top `rate` of the distribution.
    holds = [binom.sf(k - 1, len(scores), rate) for k in range(1, len(scores) + 1)]
    assume(min(abs(probability - confidence) for probability in holds) > 1e-9)
    allowed = [score for score, enough in zip(sorted(scores, reverse=True), holds, strict=True) if enough >= confidence]
    assert Calibration(scores=tuple(scores)).find_threshold(rate, confidence=confidence) == (allowed or [None])[-1]


@pytest.mark.slow
def test_a_confident_threshold_holds_the_rate_in_as_many_calibration_sets_as_said() -> None:
    # Uniform scores: the rate above a threshold t is 1 - t. Of 59 scores the highest is the bound at 0.95, and it holds
    # the rate with probability 1 - 0.95**59 = 0.9515; of 58 scores none does.
    draws = np.random.default_rng(3).uniform(size=(4000, 59))
    thresholds = np.array(
        [Calibration(scores=tuple(row)).find_threshold(0.05, confidence=0.95) for row in draws], float
    )
    low, high = binom.interval(0.99, 4000, 1 - 0.95**59)
    assert low <= np.sum(1 - thresholds <= 0.05) <= high
    assert Calibration(scores=tuple(draws[0, 1:])).find_threshold(0.05, confidence=0.95) is None


@pytest.mark.slow
@given(_RATES, st.floats(0.01, 0.999))
def test_the_smallest_confident_sample_has_a_threshold_and_one_score_fewer_has_none(
    rate: float, confidence: float
) -> None:
    n = find_min_sample_size(rate, confidence=confidence)
    assert Calibration(scores=(0.0,) * n).find_threshold(rate, confidence=confidence) is not None
    assert n == 1 or Calibration(scores=(0.0,) * (n - 1)).find_threshold(rate, confidence=confidence) is None


@pytest.mark.parametrize(("rate", "confidence", "count"), [(0.05, 0.9, 45), (0.01, 0.9, 230), (0.05, 0.95, 59)])
def test_the_smallest_confident_samples_of_round_rates_are_known(rate: float, confidence: float, count: int) -> None:
    assert find_min_sample_size(rate, confidence=confidence) == count


def test_a_shortage_is_worded_with_what_is_needed() -> None:
    said = describe_shortage(18, false_alarm_rate=0.05)
    assert said is not None
    assert said.startswith("18 held-out photos cannot support a false-alarm rate of 0.05: 19 are needed")
    assert describe_shortage(19, false_alarm_rate=0.05) is None


@pytest.mark.parametrize(("rate", "count"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999)])
def test_the_smallest_samples_of_round_rates_are_known(rate: float, count: int) -> None:
    assert find_min_sample_size(rate) == count


@pytest.mark.slow
def test_p_values_of_exchangeable_scores_are_uniform() -> None:
    # One p-value per fresh calibration set, so that the p-values are independent; 999 scores make the steps of 1/1000
    # finer than what a test on 2,000 values can see (the 1 % bound of the statistic is 0.036).
    draws = np.random.default_rng(0).gumbel(size=(2000, 1000))
    p_values = [Calibration(scores=tuple(row[1:])).compute_p_values(row[:1])[0] for row in draws]
    assert kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_the_measured_false_alarm_rate_is_the_one_asked_for() -> None:
    # Marginal guarantee: again one photo per fresh calibration set, else all photos would share one Beta-distributed
    # rate (below) and no binomial interval would hold. 0.05 * (59 + 1) is whole: the rate is 0.05, not just at most.
    draws = np.random.default_rng(1).gumbel(size=(4000, 60))
    thresholds = [Calibration(scores=tuple(row[1:])).find_threshold(0.05) for row in draws]
    alarms = sum(row[0] > threshold for row, threshold in zip(draws, thresholds, strict=True))
    low, high = binom.interval(0.99, 4000, 0.05)
    assert low <= alarms <= high


@pytest.mark.slow
def test_the_rate_given_one_calibration_set_falls_in_its_beta_interval_as_often_as_said() -> None:
    # Uniform scores: the true rate above a threshold t is 1 - t, no second sample needed. Few scores and a high rate,
    # because there a Beta distribution that is off by one is far off.
    calibrations = [Calibration(scores=tuple(row)) for row in np.random.default_rng(2).uniform(size=(2000, 4))]
    low, high = calibrations[0].estimate_false_alarm_interval(0.4, confidence=0.9)
    thresholds = np.array([calibration.find_threshold(0.4) for calibration in calibrations], dtype=np.float64)
    fewest, most = binom.interval(0.99, 2000, 0.05)
    assert fewest <= np.sum(1 - thresholds < low) <= most
    assert fewest <= np.sum(1 - thresholds > high) <= most


def test_a_sample_too_small_for_the_rate_promises_no_alarms() -> None:
    calibration = Calibration(scores=(1.0,) * 18)
    assert calibration.find_threshold(0.05) is None
    assert calibration.estimate_false_alarm_interval(0.05) == (0.0, 0.0)
    assert calibration.min_rate == 1 / 19


def test_scores_are_kept_ascending_whatever_order_they_came_in() -> None:
    assert Calibration(scores=(3.0, 1.0, 2.0)) == Calibration(scores=(1.0, 2.0, 3.0))
    assert Calibration(scores=(3.0, 1.0, 2.0)).scores == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("scores", [(), (1.0, float("nan")), (float("inf"), 1.0)])
def test_an_empty_or_not_finite_calibration_is_refused(scores: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="scores"):
        Calibration(scores=scores)


def test_a_nan_score_has_no_p_value() -> None:
    with pytest.raises(ValueError, match="1 NaN of 2"):
        Calibration(scores=(1.0,)).compute_p_values(np.array([0.5, np.nan]))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="false_alarm_rate"):
        Calibration(scores=(1.0,)).find_threshold(rate)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_a_confidence_outside_zero_to_one_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        Calibration(scores=(1.0,)).find_threshold(0.5, confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        find_min_sample_size(0.5, confidence=confidence)


@pytest.mark.parametrize("more", [{}, {"method": "split"}, {"method": "split", "folds": None}])
def test_a_calibration_of_an_earlier_format_is_read(more: dict[str, object]) -> None:
    assert Calibration.model_validate({"scores": [1.0, 2.0], **more}) == Calibration(scores=(1.0, 2.0))


def test_a_calibration_of_another_method_is_refused() -> None:
    with pytest.raises(ValidationError, match="method"):
        Calibration.model_validate({"scores": [1.0, 2.0], "method": "cross", "folds": 2})


@pytest.mark.parametrize(("photos", "said"), [(19, "5.00%"), (60, "1.64%"), (99, "1.00%"), (120, "0.83%")])
def test_the_smallest_rate_that_is_told_can_be_asked_for(photos: int, said: str) -> None:
    assert format_min_rate(find_min_rate(photos)) == said
    assert count_reportable_ranks(photos, float(said.rstrip("%")) / 100) >= 1


@given(st.integers(0, 300), st.floats(1e-9, 0.999), st.floats(1e-9, 0.999999))
def test_confident_ranks_are_counted_as_the_definition_says(n: int, rate: float, confidence: float) -> None:
    ranks = np.arange(1, n + 1)
    expected = np.count_nonzero(betainc(ranks, n + 1 - ranks, rate) >= confidence)
    assert count_confident_ranks(n, rate, confidence=confidence) == expected


def test_a_rate_that_needs_billions_of_photos_is_answered_without_counting_them() -> None:
    assert find_min_sample_size(1e-9, confidence=0.9) == 2_302_585_092
    said = describe_shortage(30, false_alarm_rate=1e-9, confidence=0.9999)
    assert said is not None
    assert "with 99.99% confidence: 9210340368 are needed" in said
