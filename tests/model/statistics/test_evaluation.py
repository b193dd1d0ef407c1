"""AUROC, AUPR and recall at a false-alarm rate, and the inputs for which they have no value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from model.statistics.evaluation import (
    compute_aupr,
    compute_auroc,
    compute_metrics,
    compute_recall,
    find_false_alarm_threshold,
)

_SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)
_RATES = st.floats(0.001, 0.999)
_Rows = list[tuple[bool, int]]


def _to_arrays(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows]), np.array([score for _, score in rows], dtype=np.float64)


@given(_SCORED)
def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_counted_half(rows: _Rows) -> None:
    defective = [score for label, score in rows if label]
    flawless = [score for label, score in rows if not label]
    pairs = [float(d > f) + 0.5 * float(d == f) for d in defective for f in flawless]
    assert compute_auroc(*_to_arrays(rows)) == pytest.approx(
        np.mean(pairs), abs=1e-12
    )  # sums of at most 400 exact halves


@given(_SCORED)
def test_aupr_is_the_mean_precision_over_the_defective_photos_each_at_its_own_score(rows: _Rows) -> None:
    labels, scores = _to_arrays(rows)
    precisions = [labels[scores >= score].mean() for score in scores[labels]]
    assert compute_aupr(labels, scores) == pytest.approx(np.mean(precisions), abs=1e-12)


@pytest.mark.slow
@given(_SCORED, _RATES)
def test_recall_is_the_best_of_the_roc_curve_within_the_false_alarm_rate(rows: _Rows, rate: float) -> None:
    labels, scores = _to_arrays(rows)
    false_alarms, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert compute_recall(labels, scores, false_alarm_rate=rate) == found[false_alarms <= rate].max()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), _RATES)
def test_a_false_alarm_threshold_keeps_the_rate_and_no_lower_score_would(scores: list[int], rate: float) -> None:
    flawless = np.array(scores, dtype=np.float64)
    threshold = find_false_alarm_threshold(flawless, false_alarm_rate=rate)
    assert (flawless > threshold).mean() <= rate
    lower = [score for score in scores if score < threshold]
    assert not lower or (flawless > max(lower)).mean() > rate


@pytest.mark.parametrize(("count", "rate", "alarms"), [(300, 0.01, 3), (300, 0.05, 15), (100, 0.29, 29), (19, 0.05, 0)])
def test_a_false_alarm_threshold_lets_the_whole_share_pass(count: int, rate: float, alarms: int) -> None:
    flawless = np.arange(count, dtype=np.float64)
    assert (flawless > find_false_alarm_threshold(flawless, false_alarm_rate=rate)).sum() == alarms


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric", [compute_auroc, compute_aupr, lambda y, s: compute_recall(y, s, false_alarm_rate=0.05)]
)
@given(rows=_SCORED)
def test_only_the_order_of_scores_counts(metric: Callable[[np.ndarray, np.ndarray], float], rows: _Rows) -> None:
    labels, scores = _to_arrays(rows)
    assert metric(labels, np.exp(scores) - 7) == metric(labels, scores)


@pytest.mark.slow
@given(_SCORED)
def test_turning_labels_or_scores_around_mirrors_auroc(rows: _Rows) -> None:
    labels, scores = _to_arrays(rows)
    assert compute_auroc(~labels, scores) == pytest.approx(1 - compute_auroc(labels, scores), abs=1e-12)
    assert compute_auroc(labels, -scores) == pytest.approx(1 - compute_auroc(labels, scores), abs=1e-12)


@given(st.integers(1, 30), st.integers(1, 30))
def test_perfect_separation_is_1_in_every_metric_and_one_score_for_all_is_chance(flawless: int, defective: int) -> None:
    labels = np.arange(flawless + defective) >= flawless
    perfect = compute_metrics(labels, labels + np.linspace(0, 0.5, len(labels)))
    assert (perfect.flawless, perfect.defective) == (flawless, defective)
    metrics = (perfect.auroc, perfect.aupr, perfect.recall_at_1_percent, perfect.recall_at_5_percent)
    assert metrics == pytest.approx((1, 1, 1, 1), abs=1e-12)
    blind = compute_metrics(labels, np.zeros(len(labels)))
    assert (blind.auroc, blind.recall_at_1_percent, blind.recall_at_5_percent) == (0.5, 0, 0)
    assert blind.aupr == pytest.approx(defective / len(labels), abs=1e-12)


def test_the_two_recalls_are_those_of_their_rates() -> None:
    labels, scores = np.arange(110) >= 100, np.concatenate([np.arange(100), [97.5] * 4, [98.5] * 5, [3]])
    found = compute_metrics(labels, scores)
    assert (found.recall_at_1_percent, found.recall_at_5_percent) == (0.5, 0.9)


def test_integer_labels_are_read_as_boolean_ones() -> None:
    scores = np.array([0.1, 0.9, 0.4])
    assert compute_auroc(np.array([0, 1, 1]), scores) == compute_auroc(np.array([False, True, True]), scores) == 1.0


@pytest.mark.parametrize("metric", [compute_auroc, compute_aupr, compute_metrics])
@pytest.mark.parametrize(
    ("labels", "scores", "reason"),
    [
        ([0, 0], [0.1, 0.2], "2 flawless and 0 defective"),
        ([1, 1, 1], [0.1, 0.2, 0.3], "0 flawless and 3 defective"),
        ([0, 1], [0.1, np.nan], "1 of 2 that are NaN or infinite"),
        ([0, 1], [np.inf, -np.inf], "2 of 2 that are NaN or infinite"),
        ([0, 1, 1], [0.1, 0.2], "one label per score"),
        ([0, 2], [0.1, 0.2], "labels 0"),
        ([], [], "both classes"),
    ],
)
def test_input_without_metrics_is_refused_in_one_line(
    metric: Callable[[np.ndarray, np.ndarray], object], labels: list[int], scores: list[float], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        metric(np.array(labels, dtype=np.int64), np.array(scores))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="false_alarm_rate"):
        compute_recall(np.array([0, 1]), np.array([0.0, 1.0]), false_alarm_rate=rate)


def test_a_threshold_of_no_photos_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one flawless photo"):
        find_false_alarm_threshold(np.array([]), false_alarm_rate=0.05)
