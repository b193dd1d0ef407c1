"""The sampler: an Optuna study, rebuilt from the trial records, and what Ray Tune asks for the next trial.

The study is kept in no file: the records hold all that it knows. A number without a record is a trial that was under
way when everything died. It stands at its place in the study and is tried next, as it was if that is known.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jobs.detectors.lineage import hash_json
from tuning.space.presets import Preset
from tuning.space.space import Configuration, SearchSpace, suggest
from tuning.trials.measure import COST, OBJECTIVE
from tuning.trials.records import TrialRecord, TrialStart

STUDY = "attentdiffernet"
_DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
PRESET = "preset"
"""User attribute of a trial that is a preset."""


class NumberedTPE(BaseSampler):
    """Samples by Optuna's TPE, seeded anew for every trial by its number.

    So the first trials depend on the seed alone. A search that goes on after a crash does not begin its random numbers
    again, which would give the same trials a second time.
    """

    def __init__(self, *, seed: int, startup_trials: int, parallel: bool) -> None:
        """Keeps the settings.

        Args:
            seed: of all trials.
            startup_trials: finished trials before TPE follows them; random until then.
            parallel: whether several trials run at a time: those under way are then taken for bad ones, so that
                neighbours are not tried at once.
        """
        self._seed, self._startup_trials, self._parallel = seed, startup_trials, parallel
        self._tpe = self._seed_tpe(0)

    def _seed_tpe(self, number: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of multivariate and group
            return TPESampler(
                seed=(self._seed * 1_000_003 + number) % 2**32,
                n_startup_trials=self._startup_trials,
                multivariate=True,
                group=True,
                constant_liar=self._parallel,
            )

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Seeds TPE by the trial's number."""
        self._tpe = self._seed_tpe(trial.number)

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """Does as TPE does."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Does as TPE does."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Does as TPE does."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def rebuild_study(
    presets: Sequence[Preset],
    records: Mapping[int, TrialRecord],
    started: Mapping[int, TrialStart],
    *,
    objectives: Sequence[str],
    storage: BaseStorage | None = None,
) -> optuna.Study:
    """Rebuilds the study: recorded trials, those under way waiting at their places, presets first.

    Args:
        presets: to try before all others; trial k is the k-th of them.
        records: outcomes by number.
        started: trials that have begun, by number.
        objectives: metrics of the records; the first is maximised, a second one, the cost, minimised.
        storage: where the study is put; default: in memory.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage or InMemoryStorage(),
        study_name=STUDY,
        directions=_DIRECTIONS[: len(objectives)],
    )
    numbers = range(max([len(presets) - 1, *records, *started]) + 1)
    for number in numbers:
        if number in records:
            study.add_trial(to_frozen_trial(records[number], objectives))
            continue
        preset = presets[number] if number < len(presets) else None
        begun = started[number].parameters if number in started else {}
        study.enqueue_trial(
            dict(preset.parameters) if preset else begun, user_attrs={PRESET: preset.name} if preset else None
        )
    return study


def to_frozen_trial(record: TrialRecord, objectives: Sequence[str]) -> optuna.trial.FrozenTrial:
    """Converts a record to a finished trial of Optuna."""
    values = [value for name in objectives if (value := record.metrics.get(name)) is not None]
    is_known = record.status != "failed" and len(values) == len(objectives)
    return create_trial(
        state=TrialState.COMPLETE if is_known else TrialState.FAIL,
        values=values if is_known else None,
        params={name: record.parameters[name] for name in record.distributions},
        distributions={name: json_to_distribution(text) for name, text in record.distributions.items()},
        user_attrs={PRESET: record.preset} if record.preset else None,
    )


def hash_configuration(configuration: Configuration, *, photos_hash: str, seeds: Sequence[int]) -> str:
    """Hashes what a trial trains and on which photos."""
    detector = configuration.detector.model_dump(mode="json", exclude={"variant", "seed"})
    asked = [detector, configuration.optimizer.model_dump(mode="json"), photos_hash, list(seeds)]
    return hash_json(asked)


class TrialSearch(OptunaSearch):
    """Asks the study for each trial of Ray Tune until the time is over.

    It keeps nothing in Tune's snapshots: a search goes on from the records.
    """

    def __init__(
        self, space: Any, *, storage: BaseStorage, sampler: NumberedTPE, objective_count: int, until_s: float
    ) -> None:
        """Takes the study over.

        Args:
            space: define-by-run function of an Optuna trial.
            storage: holds the study with all that is known.
            sampler: proposes new configurations.
            objective_count: 1, or 2 with the cost.
            until_s: monotonic time after which nothing new is tried.
        """
        single = objective_count == 1
        super().__init__(
            space=space,
            metric=OBJECTIVE if single else [OBJECTIVE, COST],
            mode="max" if single else ["max", "min"],
            sampler=sampler,
            study_name=STUDY,
            storage=storage,
        )
        self._until_s = until_s

    def suggest(self, trial_id: str) -> Any:
        """Returns the next trial; see OptunaSearch."""
        if time.monotonic() >= self._until_s:
            return Searcher.FINISHED
        return super().suggest(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the records are the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def make_suggester(
    space: SearchSpace,
    presets: Sequence[Preset],
    finished: Mapping[str, TrialRecord],
    started: Mapping[int, TrialStart],
    *,
    photos_hash: str,
    seeds: Sequence[int],
) -> Any:
    """Makes the function that asks an Optuna trial for a configuration and says what `run_trial` needs of it.

    Args:
        space: what there is to choose from.
        presets: that trials with a user attribute of that name stand for.
        finished: key -> record of trials that ran to the end; whoever is the same takes their metrics.
        started: of trials that have begun before.
        photos_hash: names the photos.
        seeds: of a trial's trainings.
    """
    by_name = {preset.name: preset for preset in presets}

    def suggest_trial(trial: Any) -> dict[str, Any]:
        preset = trial.user_attrs.get(PRESET)
        configuration = by_name[preset].suggest(trial) if preset is not None else suggest(trial, space)
        key = hash_configuration(configuration, photos_hash=photos_hash, seeds=seeds)
        twin = finished.get(key)
        begun = TrialStart(
            number=trial.number,
            key=key,
            preset=preset,
            parameters=dict(trial.params),
            detector=configuration.detector.model_dump(mode="json"),
            optimizer=configuration.optimizer.model_dump(mode="json"),
            lost=started[trial.number].lost if trial.number in started else 0,
        )
        return {
            "started": begun.model_dump(mode="json"),
            "known": twin.metrics if twin else None,
            "copy_of": twin.number if twin else None,
        }

    return suggest_trial
