"""Many photos at once: q-values as scipy's, and estimates that hold what they say on simulated runs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from model.statistics.calibration import Calibration
from model.statistics.false_discovery import (
    add_estimates,
    compute_q_values,
    estimate_alarms,
    estimate_flawless,
    list_trusted,
)


def _simulate(generator: np.random.Generator, *, n: int, flawless: int, defective: int) -> Counter[float]:
    """Draws p-values of one calibration: those of defective photos lie beyond nearly all flawless ones."""
    calibration = Calibration(scores=tuple(generator.normal(size=n)))
    scores = np.concatenate([generator.normal(size=flawless), generator.normal(6, size=defective)])
    return Counter(calibration.compute_p_values(scores).tolist())


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.lists(st.integers(1, 51), max_size=60))
def test_q_values_are_those_of_scipy_on_every_photo(first: list[int], second: list[int]) -> None:
    p_values = np.array([rank / 20 for rank in first] + [rank / 51 for rank in second])
    counts = [Counter([rank / 20 for rank in first]), Counter([rank / 51 for rank in second])]
    levels, q_values = compute_q_values(counts)
    assert q_values[np.searchsorted(levels, p_values)] == pytest.approx(false_discovery_control(p_values))


def test_a_run_without_photos_has_no_q_values() -> None:
    levels, q_values = compute_q_values([])
    assert (len(levels), len(q_values)) == (0, 0)
    estimates = add_estimates([])
    assert (estimates.defective_share.high, estimates.true_alarm_share.low) == (0.0, 1.0)


def test_intervals_hold_the_defective_and_the_false_alarms_in_19_of_20_runs() -> None:
    generator = np.random.default_rng(0)
    held = Counter[str]()
    for _ in range(200):
        calibration = np.sort(generator.normal(size=200))
        scores = np.concatenate([generator.normal(size=4000), generator.normal(8, size=400)])
        p_values = Calibration(scores=tuple(calibration)).compute_p_values(scores)
        false, alarms = int((p_values[:4000] <= 0.05).sum()), int((p_values <= 0.05).sum())
        counts = Counter(p_values.tolist())
        found = estimate_alarms(counts, calibration_photos=200, ranks=10, alarms=alarms)
        held["defective"] += found.defective.low <= 400 <= found.defective.high
        held["false"] += found.false_alarms.low <= false <= found.false_alarms.high
        share = found.true_alarm_share
        held["share"] += share.low <= 1 - false / alarms <= share.high
    assert min(held.values()) >= 190


def test_a_run_of_flawless_photos_is_not_called_defective() -> None:
    counts = _simulate(np.random.default_rng(1), n=99, flawless=20_000, defective=0)
    share = estimate_alarms(counts, calibration_photos=99, ranks=1, alarms=counts[0.01]).defective_share
    assert share.low == 0.0


def test_expected_false_alarms_are_those_of_flawless_photos_alone() -> None:
    found = estimate_alarms({0.01: 30, 1.0: 9970}, calibration_photos=99, ranks=1, alarms=30)
    assert (found.photos, found.alarms, found.expected_false_alarms) == (10_000, 30, 100.0)
    assert found.true_alarm_share.low == 0.0


def test_more_calibration_photos_narrow_the_interval() -> None:
    widths = []
    for n in (20, 200, 2000):
        found = estimate_flawless(
            _simulate(np.random.default_rng(2), n=n, flawless=9000, defective=1000), calibration_photos=n
        )
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_detectors_together_are_surer_than_the_sum_of_their_intervals() -> None:
    one = estimate_alarms(
        _simulate(np.random.default_rng(3), n=100, flawless=900, defective=300),
        calibration_photos=100,
        ranks=5,
        alarms=340,
    )
    both = add_estimates([one, one])
    assert (both.photos, both.alarms, both.defective.value) == (2400, 680, 2 * one.defective.value)
    assert both.defective.high - both.defective.low < 2 * (one.defective.high - one.defective.low)


def test_a_list_keeps_its_share_of_false_ones_on_average_over_calibrations() -> None:
    generator = np.random.default_rng(4)
    shares: dict[float, list[float]] = {}
    for _ in range(100):
        counts = _simulate(generator, n=1000, flawless=9500, defective=500)
        for trusted in list_trusted([counts], calibration_photos=[1000]):
            false = max(0, trusted.photos - 500)  # the defective ones are all in it, but for the empty lists
            shares.setdefault(trusted.q, []).append(false / max(trusted.photos, 1))
    assert [np.mean(found) <= q for q, found in shares.items()] == [True] * 3


def test_too_few_calibration_photos_are_said_with_the_number_needed() -> None:
    counts = {1 / 51: 1000, 1.0: 99_000}
    first = list_trusted([counts], calibration_photos=[50])[0]
    assert (first.photos, first.p_value, first.photos_needed) == (0, None, 1999)
    enough = list_trusted([{1 / 2000: 1000, 1.0: 99_000}], calibration_photos=[1999])[0]
    assert (enough.photos, enough.photos_needed) == (1000, None)


def test_no_number_is_given_where_no_photo_lies_beyond_the_calibration() -> None:
    assert {one.photos_needed for one in list_trusted([{0.5: 10, 1.0: 10}], calibration_photos=[99])} == {None}


@given(st.integers(1, 300), st.data())
def test_estimates_lie_within_their_intervals_whatever_the_p_values(n: int, data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(1, n + 1), min_size=1, max_size=50))
    reported = data.draw(st.integers(0, n))
    counts = Counter(rank / (n + 1) for rank in ranks)
    alarms = sum(rank <= reported for rank in ranks)
    found = estimate_alarms(counts, calibration_photos=n, ranks=reported, alarms=alarms)
    both = add_estimates([found, found])
    for one in (found.defective_share, found.true_alarm_share, both.defective_share, both.true_alarm_share):
        assert 0 <= one.low <= one.value + 1e-9 <= one.high + 2e-9 <= 1 + 3e-9
    assert all(0 < trusted.q < 1 for trusted in list_trusted([counts], calibration_photos=[n]))
