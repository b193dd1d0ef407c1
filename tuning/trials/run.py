"""Runs Ray Tune over the trials that are left: Optuna proposes, ASHA stops early, outcomes become records."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import ray
from optuna.storages import InMemoryStorage
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from jobs import storage
from jobs.cluster.datasets import count_scoring_actors
from jobs.cluster.progress import Progress
from jobs.cluster.session import explain_error
from jobs.cluster.tally import Report
from jobs.config import ScoringResources
from jobs.storage import uris
from tuning.config import SearchConfig
from tuning.space.presets import Preset
from tuning.space.space import read_space
from tuning.trials.measure import COST, EPOCH, OBJECTIVE
from tuning.trials.record_callback import RecordCallback
from tuning.trials.records import count_losses, load_records, load_starts
from tuning.trials.study import NumberedTPE, TrialSearch, make_suggester, rebuild_study
from tuning.trials.tracking import make_tracking_callbacks
from tuning.trials.trial import TrialSettings, run_trial

_TUNE = ".tune"


def name_objectives(config: SearchConfig, objective: str) -> list[str]:
    """Names the metrics that decide: the objective, and the cost of scoring where it is asked for."""
    return [objective, COST] if config.cost else [objective]


def plan_rungs(config: SearchConfig) -> list[int]:
    """Plans the epochs after which a trial may be stopped, and the last one."""
    epochs = config.optimizer.epochs
    found, rung = [], config.grace_epochs
    while config.early_stopping and not config.cost and rung < epochs:
        found.append(rung)
        rung *= config.reduction_factor
    return [*found, epochs]


def count_concurrent_trials(config: SearchConfig) -> int:
    """Counts trials at a time: as asked, else as many as the GPUs, or else the cores, have room for."""
    if config.concurrent is not None:
        return config.concurrent
    if config.gpus_per_worker > 0:
        gpus = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]  # ray ships no types
        return max(1, int(gpus / (config.gpus_per_worker * config.workers) + 1e-9))
    return max(1, count_scoring_actors(ScoringResources()) // config.workers)


def run_trials(
    config: SearchConfig, presets: Sequence[Preset], trials: TrialSettings, *, metrics: Sequence[str]
) -> None:
    """Runs what is left of the trials; every outcome is a record, and no failure ends the others.

    A worker that Ray kills for want of memory ends Ray Tune 2.60 as a whole (its actor manager knows dead actors, but
    not ``OutOfMemoryError``). Tune is then started again on what is left.

    Args:
        config: of the search.
        presets: tried first.
        trials: what trials share.
        metrics: names of all metrics that records keep.
    """
    until_s = time.monotonic() + config.time_budget_s if config.time_budget_s else math.inf
    silence_tune()
    with Progress(config.trials - len(load_records(config.results)), activity="searching", unit="trial") as progress:
        while (left := config.trials - len(load_records(config.results))) > 0 and time.monotonic() < until_s:
            try:
                run_tune(config, presets, trials, progress.report, left=left, until_s=until_s, metrics=metrics)
            except (RuntimeError, ray.exceptions.RayError) as error:
                reason = explain_error(error)[:300]
                print(f"warning: Ray Tune ended ({reason}); it is started again on what is left", flush=True)
                count_losses(config.results, reason)
            finally:
                storage.delete_tree(uris.join(config.results, _TUNE))


def run_tune(
    config: SearchConfig,
    presets: Sequence[Preset],
    trials: TrialSettings,
    report: Report,
    *,
    left: int,
    until_s: float,
    metrics: Sequence[str],
) -> None:
    """Runs Ray Tune once over the trials that have no record."""
    records, started = load_records(config.results), load_starts(config.results)
    concurrent, names = count_concurrent_trials(config), name_objectives(config, trials.objective)
    memory = InMemoryStorage()
    study = rebuild_study(presets, records, started, objectives=names, storage=memory)
    finished = {record.key: record for record in records.values() if record.status == "done"}
    suggester = make_suggester(
        read_space(config), presets, finished, started, photos_hash=trials.shared.photos_hash, seeds=trials.seeds
    )
    search = TrialSearch(
        suggester,
        storage=memory,
        sampler=NumberedTPE(seed=config.seed, startup_trials=config.startup_trials, parallel=concurrent > 1),
        objective_count=len(names),
        until_s=until_s,
    )
    keeping = RecordCallback(config.results, study, finished, report, metrics=metrics, epochs=config.optimizer.epochs)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, trials=trials), trials.resources),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=make_scheduler(config),
            num_samples=left,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=name_trial,
            trial_dirname_creator=str,  # Tune's own name is a list of all parameters, too long for a file
        ),
        run_config=make_run_config(config, [keeping, *make_tracking_callbacks(config, metrics=metrics)]),
    ).fit()


def make_run_config(config: SearchConfig, callbacks: list[tune.Callback]) -> tune.RunConfig:
    """Says where Tune keeps its state, and that a trial that fails is not run again."""
    filesystem, path = storage.resolve_filesystem(uris.join(config.results, _TUNE))
    return tune.RunConfig(
        name="search",
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=tune.FailureConfig(max_failures=0),
        callbacks=callbacks,
        verbose=0,
    )


def name_trial(trial: Any) -> str:
    """Names a trial for trackers."""
    started = trial.config["started"]
    return f"trial-{started['number']:05}" + (f"-{started['preset']}" if started["preset"] else "")


def make_scheduler(config: SearchConfig) -> ASHAScheduler | None:
    """Makes ASHA; None where no trial can be stopped early."""
    milestones = plan_rungs(config)
    if len(milestones) == 1:
        return None
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode="max",
        max_t=config.optimizer.epochs,
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction_factor,
    )


def silence_tune() -> None:
    """Silences Tune's own reports and loggers: records tell the outcome, also why a trial failed."""
    for name in ("analysis.experiment_analysis", "execution.experiment_state", "utils.util"):
        logging.getLogger(f"ray.tune.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)  # a traceback for each failure
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
