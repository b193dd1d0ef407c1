"""Drift: how often an unchanged night is called changed, and that real changes are named by their kind."""

from __future__ import annotations

import numpy as np
import pytest

from model.statistics.calibration import Calibration
from model.statistics.drift import judge_night, measure_shift, measure_shift_between

N = 200


def _score_nights(*, shift: float = 0.0, defects: float = 0.0, photos: int = 400, seed: int = 0) -> np.ndarray:
    """p-values of a night: scores are normal; a new camera shifts all of them, defects lie far out."""
    rng = np.random.default_rng(seed)
    calibration = Calibration(scores=tuple(rng.normal(size=N)))
    scores = rng.normal(size=photos) + shift
    scores[: int(defects * photos)] += 8
    return np.asarray(calibration.compute_p_values(scores))


def test_nights_like_the_calibration_are_seldom_called_anything_else() -> None:
    kinds = [judge_night(_score_nights(seed=seed), calibration_photos=N).kind for seed in range(300)]
    assert kinds.count("like_before") >= 297


def test_a_new_camera_is_new_photos_and_more_defects_are_new_defects() -> None:
    assert judge_night(_score_nights(shift=0.8), calibration_photos=N).kind == "new_photos"
    assert judge_night(_score_nights(defects=0.15), calibration_photos=N).kind == "new_defects"


def test_a_share_of_defects_that_earlier_nights_had_too_is_like_before() -> None:
    # One detector: the same calibration for both nights.
    both = _score_nights(defects=0.0, photos=1600, seed=3)
    tonight, before = both[:400].copy(), both[400:].copy()
    tonight[:60] = before[:180] = 1 / (N + 1)
    assert judge_night(tonight, calibration_photos=N).kind == "new_defects"
    assert judge_night(tonight, calibration_photos=N, earlier=before).kind == "like_before"


def test_a_night_that_lies_in_the_tail_as_a_whole_is_new_photos() -> None:
    assert judge_night(np.full(100, 1 / (N + 1)), calibration_photos=N).kind == "new_photos"


def test_few_photos_are_not_judged() -> None:
    assert judge_night(np.full(5, 1 / (N + 1)), calibration_photos=N).kind == "too_few"


@pytest.mark.parametrize("photos", [1, 30, 5000])
def test_the_interval_holds_the_distance_and_stays_within_0_and_1(photos: int) -> None:
    shift = measure_shift(_score_nights(photos=photos), calibration_photos=N)
    assert 0 <= shift.low <= shift.distance <= shift.high <= 1
    assert 0 <= shift.significance <= 1


def test_the_grid_of_p_values_itself_has_no_shift() -> None:
    grid = np.arange(1, N + 2) / (N + 1)
    assert measure_shift(grid.astype(np.float32), calibration_photos=N).distance == pytest.approx(0, abs=1e-6)
    assert measure_shift_between(grid, grid).distance == 0
