"""Tail ranks: they resolve the ties of p-values and never contradict them, whatever the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import genpareto

from model.statistics.calibration import Calibration
from model.statistics.tail_rank import MAX_MISFIT, MIN_CALIBRATION, compute_tail_ranks, fit_tail

_FINITE = st.floats(-1e12, 1e12, allow_subnormal=False)
_SAMPLES = st.lists(_FINITE, min_size=1, max_size=150)


def _rank(scores: list[float] | np.ndarray, calibration: Calibration) -> np.ndarray:
    return compute_tail_ranks(np.asarray(scores), calibration=calibration, tail=fit_tail(calibration))


def _sample(shape: float, *, count: int, seed: int = 0) -> Calibration:
    return Calibration(scores=tuple(100 + genpareto(shape, scale=7).rvs(count, random_state=seed)))


@given(_SAMPLES, st.lists(_FINITE, min_size=2, max_size=30))
@settings(deadline=None)
def test_a_higher_score_never_has_a_higher_rank(known: list[float], scores: list[float]) -> None:
    ranks = _rank(sorted(scores), Calibration(scores=tuple(known)))
    assert np.all(np.diff(ranks) <= 0)
    assert np.all((ranks >= 0) & (ranks <= 1))


def test_rounding_does_not_lift_the_rank_of_a_calibration_score() -> None:
    tiny = 1.7957979977830474e-27  # the straight line from -1 to here ends 5.6e-17 below the rank here
    ranks = _rank([0.0, tiny], Calibration(scores=(-1.0, tiny, tiny, tiny)))
    assert ranks[0] >= ranks[1]


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=150, unique=True), st.lists(_FINITE, min_size=1))
@settings(deadline=None)
def test_ranks_stay_within_the_step_of_the_p_value(known: list[int], scores: list[float]) -> None:
    calibration = Calibration(scores=tuple(map(float, known)))
    ranks, p_values = _rank(scores, calibration), calibration.compute_p_values(np.array(scores))
    assert np.all(ranks <= p_values * (1 + 1e-12))
    assert np.all(ranks >= p_values - calibration.min_rate - 1e-12)


@given(_SAMPLES)
@settings(deadline=None)
def test_beyond_the_largest_calibration_score_no_two_photos_tie(known: list[float]) -> None:
    calibration = Calibration(scores=tuple(known))
    tail = fit_tail(calibration)
    scores = tail.largest + tail.scale * np.array([0.01, 1, 10, 1e3, 1e6, 1e12])
    scores = np.unique(scores[scores > tail.largest])
    ranks = _rank(scores, calibration)
    assert np.all(np.diff(ranks) < 0)
    assert np.all((ranks > 0) & (ranks < calibration.min_rate))


@pytest.mark.parametrize("count", [1, 19, MIN_CALIBRATION, 500])
def test_right_above_a_calibration_score_the_rank_is_the_p_value(count: int) -> None:
    calibration = _sample(0.2, count=count)
    above = np.nextafter(np.array(calibration.scores), np.inf)
    assert _rank(above, calibration) == pytest.approx(calibration.compute_p_values(above), rel=1e-6)


@pytest.mark.parametrize("shape", [0.1, 0.4, 0.8])
def test_the_fit_finds_the_law_that_scores_follow(shape: float) -> None:
    tails = [fit_tail(_sample(shape, count=4000, seed=seed)) for seed in range(20)]
    assert np.mean([tail.shape for tail in tails]) == pytest.approx(shape, abs=0.1)
    assert all(tail.exceedances == 100 for tail in tails)


def test_scipy_finds_the_same_shape() -> None:
    calibration = _sample(0.5, count=1000)
    excess = np.array(calibration.scores[-100:]) - calibration.scores[-101]
    shape, _, scale = genpareto.fit(excess, floc=0)
    tail = fit_tail(calibration)
    assert (tail.shape, tail.scale) == pytest.approx((shape, scale + shape * excess[-1]), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_that_follows_the_law_is_kept(seed: int) -> None:
    tail = fit_tail(_sample(0.3, count=600, seed=seed))
    assert (tail.exceedances, tail.misfit is not None and tail.misfit < MAX_MISFIT) == (60, True)


def test_a_tail_that_does_not_follow_the_law_is_told_and_only_orders() -> None:
    two_heaps = tuple(np.concatenate([np.linspace(0, 1, 900), np.linspace(50, 50.1, 60)]))
    tail = fit_tail(Calibration(scores=two_heaps))
    assert tail.misfit is not None
    assert tail.misfit > MAX_MISFIT
    assert (tail.exceedances, tail.shape) == (0, 1.0)


@pytest.mark.parametrize(
    "scores", [tuple(range(MIN_CALIBRATION - 1)), (3.0,) * 200, (0.0,), (-1e308, 1e308), (5e-324,) * 99]
)
def test_too_few_scores_are_not_fitted_but_order(scores: tuple[float, ...]) -> None:
    calibration = Calibration(scores=scores)
    assert (fit_tail(calibration).exceedances, fit_tail(calibration).misfit) == (0, None)
    far = np.array([max(scores), np.nextafter(max(scores), np.inf), np.inf])
    ranks = _rank(far, calibration)
    assert ranks[0] >= ranks[1] > ranks[2] == 0


def test_few_calibration_photos_do_not_put_a_detector_ahead() -> None:
    few, many = _sample(0.2, count=30), _sample(0.2, count=3000)
    for score in (150.0, 300.0, 3000.0):
        assert _rank([score], few) > _rank([score], many)


def test_a_score_without_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 NaN of 2"):
        _rank([1.0, np.nan], Calibration(scores=(1.0,)))
