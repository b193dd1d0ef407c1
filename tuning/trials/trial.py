"""A trial as Ray Tune runs it: one configuration, judged at the rungs of early stopping and at the end."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from jobs import storage
from jobs.cluster.session import explain_error
from jobs.errors import JobError
from jobs.storage import uris
from model.config import DetectorConfig, OptimizerConfig
from model.process import prepare_process
from tuning.trials.distributed import measure_with_workers
from tuning.trials.measure import (
    SINGLE_WORKER,
    Metrics,
    ReportMetrics,
    SearchResources,
    TrainingJob,
    TrainingWorker,
    measure,
    to_tune_report,
)
from tuning.trials.records import TrialStart, write_start

_MAX_S_TO_END = "600"
"""Seconds for a stopped trial to let go of what it holds, before its process takes the next one."""


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a search have in common.

    Attributes:
        shared: photos, weights and features.
        results: folder of the search.
        objective: the metric that is maximised.
        seeds: of each trial's trainings.
        rungs: epochs after which metrics are reported.
        workers: data-parallel workers of a trial.
        gpus_per_worker: GPUs of each.
    """

    shared: SearchResources
    results: str
    objective: str
    seeds: Sequence[int]
    rungs: Sequence[int]
    workers: int
    gpus_per_worker: float

    @property
    def resources(self) -> dict[str, float]:
        """Logical resources of a trial's own process; several workers have theirs beside it."""
        if self.workers > 1:
            return {"CPU": 0.01}  # it only waits, but Ray Tune takes no trial that asks for nothing
        return {"CPU": 1, "GPU": self.gpus_per_worker} if self.gpus_per_worker else {"CPU": 1}


def run_trial(config: Mapping[str, Any], trials: TrialSettings) -> None:
    """Trains and reports one trial.

    Args:
        config: ``started``, what is tried, and ``known``, the metrics of an earlier trial that was the same, or None.
        trials: what it shares with the others.

    Raises:
        JobError: the trial failed; one line says why.
    """
    # Ray Tune reads it in this process. After its own 2 s it gives the next trial up, and then waits for it for ever.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", _MAX_S_TO_END)
    started = TrialStart.model_validate(config["started"])
    detector = DetectorConfig.model_validate(started.detector)
    job = TrainingJob(detector, OptimizerConfig.model_validate(started.optimizer), trials.seeds, trials.rungs)
    if config["known"] is not None:
        tune.report(to_tune_report(trials.objective, job.optimizer.epochs, config["known"]))
        return
    write_start(trials.results, started)
    run_training(
        f"trial-{started.number:05}",
        job,
        trials,
        lambda epoch, metrics: tune.report(to_tune_report(trials.objective, epoch, metrics)),
    )


def run_training(name: str, job: TrainingJob, trials: TrialSettings, tell: ReportMetrics) -> Metrics:
    """Trains and judges here, or on several workers, which report to Tune themselves.

    Args:
        name: of the training.
        job: what to do.
        trials: how.
        tell: called with epoch and metrics.

    Raises:
        JobError: it failed; one line says why.
    """
    prepare_process()
    try:
        if trials.workers == 1:
            return measure(job, trials.shared, tell, worker=choose_device(trials))
        return train_with_workers(name, job, trials)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(read_reason(error)) from None
    finally:
        gc.collect()  # a detector holds itself in cycles, and this process goes on with the next trial


def read_reason(error: Exception) -> str:
    """Reads the reason of an error, one line."""
    return " ".join(explain_error(error).removeprefix("JobError: ").split())


def train_with_workers(name: str, job: TrainingJob, trials: TrialSettings) -> Metrics:
    """Trains and judges with several workers of Ray Train."""
    filesystem, path = storage.resolve_filesystem(uris.join(trials.results, ".train"))
    return measure_with_workers(
        job,
        trials.shared,
        workers=trials.workers,
        gpus_per_worker=trials.gpus_per_worker,
        objective=trials.objective,
        name=name,
        storage_path=path,
        storage=filesystem,
    )


def choose_device(trials: TrialSettings) -> TrainingWorker:
    """Chooses the GPU that Ray gave, if there is one, else the CPU."""
    has_gpu = trials.gpus_per_worker > 0 and torch.cuda.is_available()
    return TrainingWorker(device="cuda") if has_gpu else SINGLE_WORKER
