"""Ray Tune over the trials that are left: OptunaSearch on our study, ASHA on epochs, outcomes into our records."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import ray
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, InMemoryStorage
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jobs import storage, uris
from jobs.config import ScoringResources
from jobs.pipeline import cause, scoring_actors
from jobs.progress import Progress, Report
from tuning.points import Known, sampled_point
from tuning.records import TrialRecord, load_started, write_record
from tuning.search_config import SearchConfig
from tuning.space import Point
from tuning.study import PRESET, STUDY, NumberedTPE, new_study
from tuning.tracking import tracking_callbacks
from tuning.trial import EPOCH, OBJECTIVE, Trials, run_trial

COST = "gflop"


def objectives(config: SearchConfig, objective: str) -> list[str]:
    """The figures that decide: the objective, and the cost of scoring where it is asked for."""
    return [objective, COST] if config.cost else [objective]


def rungs(config: SearchConfig) -> list[int]:
    """Epochs after which a trial may be stopped, and the last one."""
    epochs = config.optimiser.epochs
    found, rung = [], config.grace_epochs
    while config.early_stopping and not config.cost and rung < epochs:
        found.append(rung)
        rung *= config.reduction_factor
    return [*found, epochs]


def concurrent_trials(config: SearchConfig) -> int:
    """Trials at a time: as asked, else as many as the GPUs, or else the cores, have room for."""
    if config.concurrent is not None:
        return config.concurrent
    if config.gpus_per_worker > 0:
        gpus = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]  # ray ships no types
        return max(1, int(gpus / (config.gpus_per_worker * config.workers) + 1e-9))
    return max(1, scoring_actors(ScoringResources()) // config.workers)


def point_key(point: Point, *, photos_hash: str, seeds: Sequence[int]) -> str:
    """Names what a trial trains and on which photos: 16 hex digits."""
    detector = point.detector.model_dump(mode="json", exclude={"variant", "seed"})
    asked = [detector, point.optimiser.model_dump(mode="json"), photos_hash, list(seeds)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


class TrialSearch(OptunaSearch):
    """OptunaSearch over our study, that ends when there are enough trials or the time is over.

    It keeps no state of its own in Tune's snapshots: a search goes on from the records (see `tuning.study`).
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


class _Records(tune.Callback):
    """Writes the outcome of each trial and tells how far the search is."""

    def __init__(self, results: str, study: optuna.Study, names: Sequence[str], report: Report, *, epochs: int) -> None:
        self._results, self._study, self._names, self._report, self._epochs = results, study, names, report, epochs
        self._best = float("-inf")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        result = trial.last_result
        figures = {name: result.get(name) for name in self._names}
        status = "done" if result[EPOCH] >= self._epochs else "stopped"
        self._keep(trial, status=status, reason=None, epochs=result[EPOCH], figures=figures)
        self._best = max(self._best, result[OBJECTIVE])
        self._report({status: 1}, f"trial {trial.config['number']}: {result[OBJECTIVE]:.4f}, best {self._best:.4f}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() or trial.get_error()
        reason = "no reason was given" if error is None else cause(error).removeprefix("JobError: ")
        print(f"failed: trial {trial.config['number']}: {reason}", flush=True)
        self._keep(trial, status="failed", reason=reason, epochs=(trial.last_result or {}).get(EPOCH, 0), figures={})
        self._report({"failed": 1})

    def _keep(self, trial: Any, *, status: Any, reason: str | None, epochs: int, figures: dict[str, Any]) -> None:
        config = trial.config
        sampled = self._study.get_trials(deepcopy=False)[config["number"]]
        record = TrialRecord(
            number=config["number"],
            key=config["key"],
            name=config["detector"]["variant"],
            preset=config["preset"],
            parameters=sampled.params,
            distributions={name: distribution_to_json(kind) for name, kind in sampled.distributions.items()},
            detector=config["detector"],
            optimiser=config["optimiser"],
            status=status,
            reason=reason,
            epochs=epochs,
            figures=figures,
            seconds=float((trial.last_result or {}).get("time_total_s", 0.0)),
            copy_of=config["copy_of"],
        )
        write_record(self._results, record)


def suggestions(
    config: SearchConfig,
    known: Sequence[Known],
    records: Mapping[int, TrialRecord],
    *,
    photos_hash: str,
    seeds: Sequence[int],
) -> Any:
    """The define-by-run function: asks an Optuna trial for a point and says what the trial's function needs of it."""
    by_name = {one.name: one for one in known}
    finished = {record.key: record for record in records.values() if record.status == "done"}

    def suggest(trial: Any) -> dict[str, Any]:
        preset = trial.user_attrs.get(PRESET)
        if preset is None:
            point = sampled_point(trial, config.space, config.base)
        else:
            by_name[preset].told_to(trial)
            point = by_name[preset].point
        key = point_key(point, photos_hash=photos_hash, seeds=seeds)
        twin = finished.get(key)
        return {
            "number": trial.number,
            "preset": preset,
            "key": key,
            "detector": point.detector.model_dump(mode="json"),
            "optimiser": point.optimiser.model_dump(mode="json"),
            "parameters": dict(trial.params),
            "known": twin.figures if twin else None,
            "copy_of": twin.number if twin else None,
        }

    return suggest


def run_trials(
    config: SearchConfig,
    known: Sequence[Known],
    records: Mapping[int, TrialRecord],
    trials: Trials,
    *,
    figures: Sequence[str],
) -> None:
    """Runs what is left of the trials; every outcome is a record, and no failure ends the others.

    Args:
        config: of the search.
        known: points to try first.
        records: of the trials that are over.
        trials: what trials share.
        figures: names of all figures that records keep.
    """
    left = config.trials - len(records)
    concurrent = concurrent_trials(config)
    names = objectives(config, trials.objective)
    sampler = NumberedTPE(seed=config.seed, startup_trials=config.startup_trials, parallel=concurrent > 1)
    memory = InMemoryStorage()
    study = new_study(known, records, load_started(config.results), objectives=names, storage=memory)
    until_s = time.monotonic() + config.time_budget_s if config.time_budget_s else float("inf")
    space = suggestions(config, known, records, photos_hash=trials.shared.photos_hash, seeds=trials.seeds)
    search = TrialSearch(space, storage=memory, sampler=sampler, objective_count=len(names), until_s=until_s)
    _quiet()
    with Progress(left, verb="searching", unit="trial") as progress:
        keeping = _Records(config.results, study, figures, progress.report, epochs=config.optimiser.epochs)
        filesystem, path = storage.arrow_filesystem(uris.join(config.results, ".tune"))
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, trials=trials), trials.resources),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_scheduler(config),
                num_samples=left,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[keeping, *tracking_callbacks(config)],
                verbose=0,
            ),
        ).fit()
    storage.delete_tree(uris.join(config.results, ".tune"))


def _scheduler(config: SearchConfig) -> ASHAScheduler | None:
    milestones = rungs(config)
    if len(milestones) == 1:
        return None
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode="max",
        max_t=config.optimiser.epochs,
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction_factor,
    )


def _quiet() -> None:
    """Tune's own reports and loggers stay out: records are the outcome."""
    for name in ("ray.tune.analysis.experiment_analysis", "ray.tune.execution.experiment_state"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
