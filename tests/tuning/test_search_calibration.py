"""The detector that a search chooses keeps its promise: what calibrates it has judged nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from jobs.archive.mvtec import list_as_category, list_labelled, select_split
from jobs.detectors.lineage import is_training_photo
from jobs.errors import JobError
from jobs.evaluation.metrics import measure_detectors
from jobs.evaluation.report import format_false_alarms
from jobs.tables.schema import EVALUATED, Status
from model.config import PixelRules
from model.statistics.calibration import Calibration
from tuning.choice.final import make_final_promises
from tuning.trials.photos import decode_search_photos, split_flawless

PHOTOS, TRIALS, SEARCHES, RATE = 244, 64, 300, 0.05


def _realise_false_alarm_rate(held_out: str, *, seed: int) -> float:
    """The true false-alarm rate of the best of many trials, whose scores are normal and equally good.

    Half of a photo's score is its own, half comes from the trial; the trial of the lowest mean score is chosen.
    """
    rng, parts = np.random.default_rng(seed), split_flawless(PHOTOS, fraction=0.2)
    scores = (rng.normal(size=PHOTOS) + rng.normal(size=(TRIALS, PHOTOS))) / 2**0.5
    best = scores[scores[:, parts.judge].mean(1).argmin()]
    calibrating: npt.NDArray[np.int64] = getattr(parts, held_out)
    threshold = Calibration(scores=tuple(best[calibrating])).find_threshold(RATE)
    return float((rng.normal(size=2000) > threshold).mean())


def test_the_best_of_many_trials_keeps_the_rate_only_on_photos_that_judged_nothing() -> None:
    rates = {
        part: np.mean([_realise_false_alarm_rate(part, seed=seed) for seed in range(SEARCHES)])
        for part in ("judge", "calibrate")
    }
    assert rates["judge"] > 1.2 * RATE  # what a search did before: the law is broken
    assert rates["calibrate"] < RATE + 3 * 0.03 / SEARCHES**0.5


@pytest.mark.parametrize("count", [3, 4, 8, 61])
def test_train_judge_and_calibrate_are_disjoint_and_all(count: int) -> None:
    parts = split_flawless(count, fraction=0.2)
    assert min(map(len, (parts.train, parts.judge, parts.calibrate))) >= 1
    assert sorted(np.concatenate([parts.train, parts.judge, parts.calibrate])) == list(range(count))


def test_groups_of_a_search_stay_on_one_side_and_give_one_calibration_photo_each() -> None:
    groups = np.arange(60) // 5
    parts = split_flawless(60, fraction=0.2, groups=groups)
    sides = [set(groups[part]) for part in (parts.train, parts.judge, parts.calibrate)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12
    assert len(parts.calibrate) == len(sides[2])
    single = split_flawless(60, fraction=0.2, groups=np.arange(60))
    for part in ("train", "judge", "calibrate"):  # photos that all differ are split as they always were
        assert np.array_equal(getattr(single, part), getattr(split_flawless(60, fraction=0.2), part))


def test_a_search_decodes_with_its_black_and_white_and_refuses_photos_of_one_group(drawn: Path) -> None:
    data = f"file://{drawn}/data"
    train = list_as_category(f"{data}/insulator/train/good", "insulator").slice(0, 20)
    labelled = select_split(list_labelled(data), "test").slice(0, 2)
    plain, bright = (
        decode_search_photos(train, labelled, 64, 10**8, 0.2, rules)
        for rules in (PixelRules(), PixelRules(None, 128.0))
    )
    assert bright.train.mean() > 1.3 * plain.train.mean()
    assert bright.labelled.mean() > 1.3 * plain.labelled.mean()
    with pytest.raises(JobError, match="--group-by photo takes each photo by itself"):
        decode_search_photos(train, labelled, 64, 10**8, 0.2, PixelRules(), np.zeros(20, np.int64))


def test_photos_that_judged_are_recorded_and_those_that_calibrate_are_new_to_the_detector(drawn: Path) -> None:
    data = f"file://{drawn}/data"
    train = list_as_category(f"{data}/insulator/train/good", "insulator").slice(0, 20)
    found = decode_search_photos(train, select_split(list_labelled(data), "test").slice(0, 2), 64, 10**8, 0.2)
    parts = split_flawless(20, fraction=0.2)
    assert (len(found.train), len(found.held_out), len(found.calibration)) == (13, 3, 4)
    assert found.trained_on is not None
    seen = np.array(is_training_photo(train, recorded=found.trained_on))
    assert sorted(np.flatnonzero(~seen)) == sorted(parts.calibrate)


def test_the_final_report_sets_false_alarms_against_the_promise() -> None:
    outcomes = [{"name": "tuned", "seed": 0, "calibration": list(np.linspace(0, 1, 40))}, {"name": "old", "seed": 0}]
    promises = make_final_promises("insulator", outcomes, false_alarm_rate=RATE)
    assert [key[1] for key in promises] == ["tuned"]
    row = {"category": "insulator", "variant": "tuned", "seed": 0, "label": "good", "status": Status.SCORED}
    rows = pa.Table.from_pylist([{**row, "image_uri": str(n), "score": 2.0} for n in range(9)], schema=EVALUATED)
    (said,) = format_false_alarms(measure_detectors(rows, promises=promises), promises)
    assert "9 of 9 flawless photos reported" in said
    assert "MORE THAN PROMISED" in said
