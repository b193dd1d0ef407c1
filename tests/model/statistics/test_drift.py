"""Drift: how often an unchanged night is called changed, and that real changes are named by their kind."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from model.statistics.calibration import Calibration
from model.statistics.drift import judge_night, measure_shift, measure_shift_between

N = 200


def _score_nights(
    *,
    shift: float = 0.0,
    spread: float = 1.0,
    defects: float = 0.0,
    defect_score: float = 8.0,
    photos: int = 400,
    seed: int = 0,
    n: int = N,
) -> np.ndarray:
    """p-values of a night: scores are normal; a new camera shifts all of them, defects lie far out."""
    rng = np.random.default_rng(seed)
    calibration = Calibration(scores=tuple(rng.normal(size=n)))
    scores = rng.normal(size=photos) * spread + shift
    scores[: int(defects * photos)] += defect_score
    return np.asarray(calibration.compute_p_values(scores))


def _count_kinds(nights: int = 60, *, n: int, **night: float) -> Counter[str]:
    """Kinds of nights, each with its own draw of the calibration."""
    return Counter(
        judge_night(_score_nights(seed=seed, n=n, **night), calibration_photos=n).kind  # type: ignore[arg-type]
        for seed in range(nights)
    )


@pytest.mark.parametrize(
    ("n", "photos"), [(10, 72), (20, 20), (20, 3000), (48, 72), (200, 400), (2000, 20), (2000, 3000)]
)
def test_nights_like_the_calibration_are_seldom_called_anything_else(n: int, photos: int) -> None:
    assert _count_kinds(n=n, photos=photos)["like_before"] >= 58


@pytest.mark.parametrize("n", [48, 200])
def test_nights_like_earlier_ones_are_seldom_called_anything_else(n: int) -> None:
    kinds = []
    for seed in range(60):
        both = _score_nights(photos=500, seed=seed, n=n, defects=0.1)
        shuffled = np.random.default_rng(seed).permutation(both)
        kinds.append(judge_night(shuffled[:100], calibration_photos=n, earlier=shuffled[100:]).kind)
    assert kinds.count("like_before") >= 58


@pytest.mark.parametrize(
    ("night", "kind"),
    [
        ({"shift": 1.5}, "new_photos"),
        ({"shift": -1.5}, "new_photos"),
        ({"spread": 3.0}, "new_photos"),
        ({"defects": 0.2}, "new_defects"),
        ({"defects": 0.44, "defect_score": 2.0}, "new_defects"),
    ],
)
def test_what_has_changed_is_named(night: dict[str, float], kind: str) -> None:
    kinds = _count_kinds(40, n=N, **night)
    assert kinds["like_before"] == 0
    assert kinds[kind] >= 36


def test_many_defects_that_a_small_calibration_cannot_tell_from_the_rarest_photos_are_no_new_photos() -> None:
    # The demo's: 40 flawless photos drawn as the calibration is, and 32 with a defect.
    flawless = [3, 3, 4, 4, 4, 4, 4, 6, 6, 8, 9, 10, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 13, 16, 17, 17, 17, 18, 18]
    flawless += [19, 24, 29, 30, 30, 34, 34, 37, 40, 48, 48]
    defects = [1] * 16 + [2] * 3 + [3] * 6 + [4] * 5 + [6] * 2
    assert judge_night(np.array(flawless + defects) / 49, calibration_photos=48).kind == "new_defects"
    assert judge_night(np.array(flawless) / 49, calibration_photos=48).kind == "like_before"


def test_a_night_of_millions_is_judged_at_once() -> None:
    night = np.tile(_score_nights(photos=5000), 200)
    assert judge_night(night, calibration_photos=N).kind == "like_before"


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
