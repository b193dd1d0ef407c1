"""The sampler's memory is made of trial records: a search that goes on knows what it knew, and repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import distribution_to_json
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from jobs import storage
from jobs.errors import JobError, RequestError
from model.config import DetectorConfig, OptimizerConfig
from tuning.config import SearchConfig
from tuning.space.config import SpaceConfig
from tuning.space.presets import Preset, build_presets
from tuning.space.space import Configuration, build_space, suggest
from tuning.trials.records import (
    MAX_LOSSES,
    TrialRecord,
    TrialStart,
    claim_results,
    count_losses,
    load_records,
    load_starts,
    write_record,
    write_start,
)
from tuning.trials.study import PRESET, NumberedTPE, rebuild_study

BASE = Configuration(DetectorConfig(weights="random", train_angles="scoring"), OptimizerConfig())
SPACE = build_space(SpaceConfig(), BASE)
PRESETS = build_presets(SPACE)


def _started(number: int, *, parameters: dict[str, Any] | None = None, preset: str | None = None) -> TrialStart:
    configuration = PRESETS[0].configuration
    return TrialStart(
        number=number,
        key=f"key{number}",
        preset=preset,
        parameters=parameters or {},
        detector=configuration.detector.model_dump(mode="json"),
        optimizer=configuration.optimizer.model_dump(mode="json"),
    )


def _record(trial: optuna.Trial, value: float | None, *, preset: str | None = None) -> TrialRecord:
    return TrialRecord(
        **_started(trial.number, parameters=trial.params, preset=preset).model_dump(exclude={"lost"}),
        name="n",
        distributions={name: distribution_to_json(kind) for name, kind in trial.distributions.items()},
        status="failed" if value is None else "done",
        reason="r" if value is None else None,
        epochs=1,
        metrics={} if value is None else {"auroc": value, "gflop": 2.0},
        seconds=1.0,
        copy_of=None,
    )


def _search(count: int, records: dict[int, TrialRecord], *, presets: list[Preset]) -> dict[int, TrialRecord]:
    """Goes on with a search up to ``count`` trials, one after the other, as Tune would; a made-up metric each."""
    memory = InMemoryStorage()
    study = rebuild_study(presets, records, {}, objectives=["auroc"], storage=memory)
    study.sampler = NumberedTPE(seed=3, startup_trials=6, parallel=False)
    found = dict(records)
    while len(found) < count:
        trial = study.ask()
        preset = trial.user_attrs.get(PRESET)
        if preset is None:
            suggest(trial, SPACE)
        else:
            next(one for one in presets if one.name == preset).suggest(trial)
        value = None if trial.number % 5 == 4 else (trial.params["flow_blocks"] % 4) / 4
        study.tell(trial, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
        found[trial.number] = _record(trial, value, preset=preset)
    return found


def test_presets_come_first_and_in_order() -> None:
    found = _search(6, {}, presets=PRESETS)
    assert [found[number].preset for number in range(6)] == [one.name for one in PRESETS] + [None, None]
    for one, record in zip(PRESETS, found.values(), strict=False):
        assert record.parameters == one.parameters


def test_a_search_that_was_interrupted_anywhere_comes_to_the_same_trials() -> None:
    whole = _search(16, {}, presets=PRESETS)
    for interrupted in (2, 7, 12):
        first = _search(interrupted, {}, presets=PRESETS)
        assert _search(16, first, presets=PRESETS) == whole


def test_trials_of_one_seed_differ_from_each_other_and_from_another_seed_s() -> None:
    found = _search(14, {}, presets=[])
    assert len({str(record.parameters) for record in found.values()}) == 14


def test_a_trial_without_record_is_tried_again_at_its_place_as_it_was() -> None:
    whole = _search(9, {}, presets=PRESETS)
    left = {number: record for number, record in whole.items() if number not in (1, 6)}
    begun = {6: _started(6, parameters=whole[6].parameters)}
    study = rebuild_study(PRESETS, left, begun, objectives=["auroc"])
    waiting = [trial.number for trial in study.get_trials() if trial.state == TrialState.WAITING]
    assert waiting == [1, 6]
    assert study.ask().number == 1
    again = study.ask()
    assert again.number == 6
    suggest(again, SPACE)
    assert again.params == whole[6].parameters
    assert study.ask().number == 9


def test_failed_trials_teach_nothing_and_keep_their_place() -> None:
    whole = _search(6, {}, presets=PRESETS)
    assert whole[4].status == "failed"
    study = rebuild_study(PRESETS, whole, {}, objectives=["auroc", "gflop"])
    assert [trial.state.name for trial in study.get_trials()].count("FAIL") == 1
    assert study.get_trials()[0].values == [whole[0].metrics["auroc"], 2.0]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_records_survive_the_way_through_storage(tmp_path: Path) -> None:
    results = f"file://{tmp_path}"
    found = _search(5, {}, presets=PRESETS)
    for record in found.values():
        write_record(results, record)
    assert load_records(results) == found
    assert load_records(results)[0].configuration.detector == PRESETS[0].configuration.detector


def test_a_search_of_the_old_spelling_goes_on(tmp_path: Path) -> None:
    results, old = f"file://{tmp_path}", _started(0).model_dump()
    old["optimiser"] = old.pop("optimizer")
    storage.write(f"{results}/started/00000.json", json.dumps(old).encode())
    assert load_starts(results) == {0: _started(0)}

    config = SearchConfig.model_validate({"data": "s3://d", "category": "c", "results": results})
    claim_results(config, photos_hash="photos")
    spelt = storage.read(f"{results}/search.json").replace(b"optimizer", b"optimiser")
    storage.write(f"{results}/search.json", spelt)
    claim_results(config, photos_hash="photos")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    storage.write(f"file://{tmp_path}/trials/00003.json", b"{")
    with pytest.raises(JobError, match=r"trials/00003.json is damaged, delete it to try that trial again"):
        load_records(f"file://{tmp_path}")


def test_a_trial_that_takes_ray_tune_down_again_and_again_is_given_up(tmp_path: Path) -> None:
    results = f"file://{tmp_path}"
    trial = _search(1, {}, presets=PRESETS)[0]
    write_record(results, trial)
    for number in (0, 1):
        write_start(results, _started(number))
    for loss in range(MAX_LOSSES):
        assert set(load_records(results)) == {0}
        assert load_starts(results)[1].lost == loss
        count_losses(results, "OutOfMemoryError: killed")
    given_up = load_records(results)[1]
    assert (given_up.status, given_up.epochs) == ("failed", 0)
    assert given_up.reason == "Ray Tune ended 2 times while it was under way, at last by OutOfMemoryError: killed"
    assert load_records(results)[0] == trial  # a finished trial is none of it
    rebuild_study(PRESETS, load_records(results), {}, objectives=["auroc"])


def test_a_results_folder_holds_one_search(tmp_path: Path) -> None:
    config = SearchConfig(data="/d", category="c", results=str(tmp_path))
    claim_results(config, photos_hash="photos")
    claim_results(config.model_copy(update={"trials": 99, "concurrent": 1}), photos_hash="photos")
    for changed in ({"seed": 1}, {"space": SpaceConfig(pooling="average")}, {"optimizer": OptimizerConfig(epochs=3)}):
        with pytest.raises(RequestError, match=f"holds a search with another {next(iter(changed))}:"):
            claim_results(config.model_copy(update=changed), photos_hash="photos")
    with pytest.raises(RequestError, match="another photos"):
        claim_results(config, photos_hash="others")
