"""Intervals over seeds, and the bootstrap over photos and seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from model.statistics.resampling import (
    PairedScores,
    bootstrap_auroc,
    bootstrap_difference,
    compute_weighted_auroc,
    estimate_seed_interval,
)


def _draw_scores(
    rng: np.random.Generator, *, shift: float, seeds: int = 3, photos: int = 300
) -> tuple[np.ndarray, ...]:
    """Labels, half of them defective, and normal scores whose defective ones lie ``shift`` higher."""
    labels = np.arange(photos) < photos // 2
    return labels, rng.normal(size=(seeds, photos)) + shift * labels


@given(st.integers(0, 2**31))
@pytest.mark.slow
def test_the_auroc_of_resamples_is_scikit_learn_s_with_photos_repeated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[False, True], rng.random(20) < 0.4])
    scores = rng.integers(0, 6, size=22).astype(np.float64)  # full of ties
    counts = rng.integers(0, 4, size=(5, 22))
    counts[:, :2] += 1  # both classes are in every resample

    found = compute_weighted_auroc(labels, scores, counts=counts)

    expected = [roc_auc_score(labels.repeat(row), scores.repeat(row)) for row in counts]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_interval_over_seeds_is_student_s() -> None:
    values = [0.81, 0.84, 0.90]
    found = estimate_seed_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((0.85, low, high), abs=1e-12)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = estimate_seed_interval([0.8])
    assert (found.mean, found.low, found.high) == (0.8, None, None)
    with pytest.raises(ValueError, match="at least one value"):
        estimate_seed_interval([])


def test_the_bootstrap_interval_of_one_detector_is_as_wide_as_theory_says() -> None:
    labels, scores = _draw_scores(np.random.default_rng(0), shift=1.0, seeds=1)
    found = bootstrap_auroc(labels, scores, resamples=4000)
    a = found.mean
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)  # Hanley & McNeil, Radiology 1982, for 150 against 150 photos
    standard_error = np.sqrt((a * (1 - a) + 149 * (q1 - a * a) + 149 * (q2 - a * a)) / 150**2)
    assert found.low is not None
    assert found.high is not None
    # The formula assumes exponential scores; for normal ones it is known to be within a tenth or so.
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)
    assert found.low < a < found.high


def test_seeds_that_differ_widen_the_interval() -> None:
    labels, scores = _draw_scores(np.random.default_rng(1), shift=1.0, seeds=1)
    alike = bootstrap_auroc(labels, np.repeat(scores, 3, axis=0))
    unlike = bootstrap_auroc(labels, np.stack([scores[0] + extra * labels for extra in (-0.8, 0.0, 0.8)]))
    assert alike.high - alike.low < 0.75 * (unlike.high - unlike.low)  # type: ignore[operator]  # both have ends


def test_a_variant_compared_with_itself_differs_by_exactly_nothing() -> None:
    labels, scores = _draw_scores(np.random.default_rng(2), shift=0.5)
    found = bootstrap_difference([PairedScores(labels, scores, np.exp(scores))])
    assert (found.mean, found.low, found.high, found.share_not_above) == (0, 0, 0, 1)


def test_a_small_gain_on_the_same_photos_shows_although_each_auroc_alone_is_uncertain() -> None:
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(2):
        labels, first = _draw_scores(rng, shift=1.0)
        pairs.append(PairedScores(labels, first, first + 0.1 * labels))
    found = bootstrap_difference(pairs)
    assert 0 < found.low < found.mean < found.high < 0.05
    assert found.share_not_above == 0
    alone = bootstrap_auroc(pairs[0].labels, pairs[0].first)
    assert alone.high - alone.low > 2 * (found.high - found.low)  # type: ignore[operator]  # both have ends


def test_swapping_the_variants_mirrors_the_difference() -> None:
    labels, first = _draw_scores(np.random.default_rng(4), shift=0.6)
    _, second = _draw_scores(np.random.default_rng(5), shift=0.9)
    one = bootstrap_difference([PairedScores(labels, first, second)])
    other = bootstrap_difference([PairedScores(labels, second, first)])
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low), abs=1e-12)


def test_the_interval_of_a_paired_difference_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = stats.norm.cdf(1.0 / np.sqrt(2)) - stats.norm.cdf(0.7 / np.sqrt(2))
    held = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        labels, shared = _draw_scores(rng, shift=0.0, seeds=1, photos=80)
        pair = PairedScores(labels, shared + 0.7 * labels, 0.8 * shared + 0.6 * rng.normal(size=80) + 1.0 * labels)
        found = bootstrap_difference([pair], resamples=300, seed=trial)
        held += found.low <= truth <= found.high
    assert 180 <= held <= 198  # 95 % of 200 are 190; binomial 99.9 % is 179..198


def test_categories_count_equally_whatever_their_size() -> None:
    rng = np.random.default_rng(6)
    labels, first = _draw_scores(rng, shift=0.0, photos=600)
    few = np.array([False, True])
    pairs = [PairedScores(labels, first, first), PairedScores(few, np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))]
    found = bootstrap_difference(pairs, resamples=50)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)  # no resample lacks a class, small as it may be


def test_the_wide_interval_knows_that_a_gain_comes_from_one_category_alone() -> None:
    rng = np.random.default_rng(9)
    labels, first = _draw_scores(rng, shift=1.0, photos=400)
    gains = [PairedScores(labels, first, first + gain * labels) for gain in (1.0, 0.0, 0.0, 0.0)]
    found = bootstrap_difference(gains)
    assert found.wide_low is not None
    assert found.wide_high is not None
    assert found.low > 0.5 * found.mean
    assert found.wide_low == 0  # in (3/4)^4 of the resamples, nearly a third, that category is not drawn
    assert found.wide_high > 2 * found.mean
    alike = bootstrap_difference([gains[0]] * 4)
    assert (alike.wide_low, alike.wide_high) == pytest.approx((alike.low, alike.high), abs=0.02)


def test_a_single_category_tells_nothing_of_others() -> None:
    labels, scores = _draw_scores(np.random.default_rng(10), shift=1.0)
    found = bootstrap_difference([PairedScores(labels, scores, scores)])
    assert (found.wide_low, found.wide_high) == (None, None)


def test_the_same_seed_gives_the_same_interval_and_blocks_change_nothing_but_the_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, scores = _draw_scores(np.random.default_rng(7), shift=1.0)
    whole = bootstrap_auroc(labels, scores)
    assert bootstrap_auroc(labels, scores) == whole
    monkeypatch.setattr("model.statistics.resampling._BLOCK_CELLS", 300 * 7)
    cut = bootstrap_auroc(labels, scores)
    # Ends of a 95 % interval from 2000 resamples have a standard error of about a tenth of a standard deviation.
    assert (cut.low, cut.high) == pytest.approx((whole.low, whole.high), abs=0.4 * (whole.high - whole.low) / 4)  # type: ignore[operator]


def test_scores_that_cannot_be_paired_are_refused() -> None:
    labels, scores = _draw_scores(np.random.default_rng(8), shift=0.0)
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_difference([PairedScores(labels, scores, scores[:1])])
    with pytest.raises(ValueError, match="at least one category"):
        bootstrap_difference([])
