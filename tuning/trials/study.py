"""The sampler's memory: an Optuna study, built anew from the trial records whenever a search starts or goes on.

Nothing of it is kept in files: the records hold all that it knows. A number without a record is a trial that was under
way when everything died, and stands at its place in the study, to be tried next, as it was if that is known.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from tuning.space.presets import Preset
from tuning.trials.records import TrialRecord, TrialStart

STUDY = "attentdiffernet"
_DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
PRESET = "preset"
"""User attribute of a trial that is a preset."""


class NumberedTPE(BaseSampler):
    """Optuna's TPE sampler, seeded anew for every trial by its number.

    The first trials do not depend on anything but the seed then, and a search that goes on after a crash does not begin
    its random numbers again, which would give the same trials a second time.
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
        self._tpe = self._seeded(0)

    def _seeded(self, number: int) -> TPESampler:
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
        """Seeds."""
        self._tpe = self._seeded(trial.number)

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        """TPE's."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """TPE's."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """TPE's."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def rebuild_study(
    presets: Sequence[Preset],
    records: Mapping[int, TrialRecord],
    started: Mapping[int, TrialStart],
    *,
    objectives: Sequence[str],
    storage: BaseStorage | None = None,
) -> optuna.Study:
    """A study in memory with all recorded trials, those under way waiting at their places, presets first.

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
