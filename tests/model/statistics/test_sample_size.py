"""How well an AUROC will be known, before anything is measured."""

from __future__ import annotations

import numpy as np
import pytest

from model.statistics.evaluation import compute_auroc
from model.statistics.sample_size import estimate_auroc_half_width


def test_the_standard_error_is_the_papers() -> None:
    """Hanley & McNeil 1982, table III: AUROC 0.893, 58 normal and 51 abnormal cases, standard error 0.032 to 0.033."""
    assert estimate_auroc_half_width(0.893, flawless=58, defective=51) / 1.96 == pytest.approx(0.0325, abs=0.0005)


def test_nineteen_in_twenty_measured_aurocs_lie_within_it() -> None:
    """Exponential scores, which the formula assumes: the chance that a defect scores above is rate / (1 + rate)."""
    rng, rate = np.random.default_rng(0), 9.0
    labels = np.repeat([False, True], [40, 15])
    inside = 0
    half = estimate_auroc_half_width(0.9, flawless=40, defective=15)
    for _ in range(400):
        scores = np.concatenate([rng.exponential(1, 40), rng.exponential(rate, 15)])
        inside += abs(compute_auroc(labels, scores) - 0.9) <= half
    assert 0.91 <= inside / 400 <= 0.99


def test_more_defects_give_a_narrower_interval() -> None:
    widths = [estimate_auroc_half_width(0.8, flawless=50, defective=count) for count in (2, 5, 20, 100)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("value", "flawless", "defective"), [(0.0, 5, 5), (1.0, 5, 5), (0.9, 0, 5), (0.9, 5, 0)])
def test_impossible_numbers_are_refused(value: float, flawless: int, defective: int) -> None:
    with pytest.raises(ValueError, match="needed an AUROC between 0 and 1"):
        estimate_auroc_half_width(value, flawless=flawless, defective=defective)
