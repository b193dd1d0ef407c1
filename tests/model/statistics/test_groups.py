"""Groups of photos: numbered, merged, one photo drawn of each; what a calibration over groups promises."""

from __future__ import annotations

import numpy as np
import pytest

from model.statistics.calibration import Calibration
from model.statistics.groups import count_groups, draw_one_of_each, merge_groups, number_groups
from model.training.photos import split_calibration


def test_equal_names_have_equal_numbers_in_the_order_in_which_they_first_occur() -> None:
    assert number_groups(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert number_groups([]).tolist() == []


def test_photos_that_any_grouping_puts_together_are_together() -> None:
    """0 and 1 are copies, 1 and 2 of one site: all three are one group."""
    copies, sites = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 2])
    assert merge_groups(copies, sites).tolist() == [0, 0, 0, 1, 1]
    assert merge_groups(copies).tolist() == copies.tolist()


def test_one_photo_of_each_group_is_drawn_and_each_has_the_same_chance() -> None:
    groups = np.array([3, 1, 3, 3, 1, 7])
    drawn = [draw_one_of_each(groups, rng=np.random.default_rng(seed)) for seed in range(900)]
    assert all(sorted(groups[one].tolist()) == [1, 3, 7] for one in drawn)
    times = np.bincount(np.concatenate(drawn), minlength=6) / 900
    np.testing.assert_allclose(times, [1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 2, 1], atol=0.06)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_no_group_is_on_both_sides_of_a_split(fraction: float) -> None:
    groups = np.random.default_rng(0).integers(0, 30, 200)
    training, calibration = split_calibration(200, fraction=fraction, seed=3, groups=groups)
    assert not set(groups[training]) & set(groups[calibration])
    assert sorted([*training, *calibration]) == list(range(200))
    assert count_groups(groups[calibration]) == min(max(round(30 * fraction), 1), 29)


def test_a_split_of_photos_that_are_groups_by_themselves_is_the_split_of_photos() -> None:
    alone = split_calibration(50, fraction=0.2, seed=4, groups=np.arange(50)[::-1])
    for one, other in zip(alone, split_calibration(50, fraction=0.2, seed=4), strict=True):
        assert one.tolist() == other.tolist()


def test_one_group_alone_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="at least 2 flawless photos of different groups, got 1 of 5 photos"):
        split_calibration(5, fraction=0.2, seed=0, groups=np.zeros(5, np.int64))


@pytest.mark.slow
def test_one_score_a_group_holds_the_false_alarm_rate_for_a_new_group_and_all_scores_do_not() -> None:
    """39 scenes of 1 to 40 photos, whose scores differ between scenes and hardly within, larger scenes scoring lower.

    The rate of the new photos is 5 % with 39 groups exactly, for 2 of 40 ranks are reported. All photos as if they
    were independent promise the same and report many more.
    """
    rng = np.random.default_rng(0)
    alarms = {"one of each group": 0, "all photos": 0}
    for _ in range(4000):
        sizes = rng.choice([1, 40], 40)
        groups = np.repeat(np.arange(40), sizes)
        scores = rng.normal(-np.log(sizes))[groups] + rng.normal(0, 0.05, len(groups))
        new = rng.choice(np.flatnonzero(groups == 39))
        known = np.flatnonzero(groups != 39)
        one = known[draw_one_of_each(groups[known], rng=rng)]
        for name, calibrating in (("one of each group", one), ("all photos", known)):
            p_value = Calibration(scores=tuple(scores[calibrating])).compute_p_values(scores[[new]])[0]
            alarms[name] += p_value <= 0.05
    assert alarms["one of each group"] / 4000 == pytest.approx(0.05, abs=0.011)  # 3 standard errors
    assert alarms["all photos"] / 4000 > 0.2
