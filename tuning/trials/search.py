"""What Ray Tune asks for the next trial: OptunaSearch over our own study."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.storages import BaseStorage
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jobs.detectors.lineage import hash_json
from tuning.space.presets import Preset
from tuning.space.space import Configuration, SearchSpace, suggest
from tuning.trials.measure import COST, OBJECTIVE
from tuning.trials.records import TrialRecord, TrialStart
from tuning.trials.study import PRESET, STUDY, NumberedTPE


def hash_configuration(configuration: Configuration, *, photos_hash: str, seeds: Sequence[int]) -> str:
    """Names what a trial trains and on which photos: 16 hex digits."""
    detector = configuration.detector.model_dump(mode="json", exclude={"variant", "seed"})
    asked = [detector, configuration.optimizer.model_dump(mode="json"), photos_hash, list(seeds)]
    return hash_json(asked)


class TrialSearch(OptunaSearch):
    """OptunaSearch over our study, that ends when there are enough trials or the time is over.

    It keeps no state of its own in Tune's snapshots: a search goes on from the records (see `tuning.trials.study`).
    """

    def __init__(
        self, space: Any, *, storage: BaseStorage, sampler: NumberedTPE, objective_count: int, until_s: float
    ) -> None:
        """Takes the study over.

        Args:
            space: define-by-run function of an Optuna trial.
            storage: holds the study with all that is known.
            sampler: gives new points.
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
        """The next trial; see OptunaSearch."""
        if time.monotonic() >= self._until_s:
            return Searcher.FINISHED
        return super().suggest(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

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
