"""What Ray Tune runs for each trial: one point of the space, judged at the rungs of early stopping and at the end."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from jobs import storage
from jobs.cluster.session import cause
from jobs.errors import JobError
from jobs.storage import uris
from model.config import DetectorConfig, OptimizerConfig
from model.process import prepare_process
from tuning.trials.measure import ALONE, Figures, Job, Shared, Tell, Worker, measure, reported
from tuning.trials.records import Started, write_started

_MOST_S_TO_END = "600"
"""Seconds for a stopped trial to let go of what it holds, before its process takes the next one."""


@dataclass(frozen=True)
class Trials:
    """What all trials of a search have in common.

    Attributes:
        shared: photos, weights and features.
        results: folder of the search.
        objective: the figure that is maximised.
        seeds: of each trial's trainings.
        rungs: epochs after which figures are reported.
        workers: data-parallel workers of a trial.
        gpus_per_worker: GPUs of each.
    """

    shared: Shared
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


def run_trial(config: Mapping[str, Any], trials: Trials) -> None:
    """Trains and reports one trial.

    Args:
        config: ``started``, what is tried, and ``known``, the figures of an earlier trial that was the same, or None.
        trials: what it shares with the others.

    Raises:
        JobError: the trial failed; one line says why.
    """
    # Ray Tune reads it in this process. After its own 2 s it gives the next trial up, and then waits for it for ever.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", _MOST_S_TO_END)
    started = Started.model_validate(config["started"])
    detector = DetectorConfig.model_validate(started.detector)
    job = Job(detector, OptimizerConfig.model_validate(started.optimiser), trials.seeds, trials.rungs)
    if config["known"] is not None:
        tune.report(reported(trials.objective, job.optimiser.epochs, config["known"]))
        return
    write_started(trials.results, started)
    measured(
        f"trial-{started.number:05}",
        job,
        trials,
        lambda epoch, figures: tune.report(reported(trials.objective, epoch, figures)),
    )


def measured(name: str, job: Job, trials: Trials, tell: Tell) -> Figures:
    """Trains and judges here, or on several workers, which tell Tune themselves.

    Args:
        name: of the training.
        job: what to do.
        trials: how.
        tell: called with epoch and figures.

    Raises:
        JobError: it failed; one line says why.
    """
    prepare_process()
    try:
        if trials.workers == 1:
            return measure(job, trials.shared, tell, worker=_alone(trials))
        return _with_workers(name, job, trials)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(_reason(error)) from None
    finally:
        gc.collect()  # a detector holds itself in cycles, and this process goes on with the next trial


def _reason(error: Exception) -> str:
    return " ".join(cause(error).removeprefix("JobError: ").split())


def _with_workers(name: str, job: Job, trials: Trials) -> Figures:
    from tuning.trials.distributed import measure_with_workers

    filesystem, path = storage.arrow_filesystem(uris.join(trials.results, ".train"))
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


def _alone(trials: Trials) -> Worker:
    """On the GPU that Ray gave it, if it gave one and there is one."""
    has_gpu = trials.gpus_per_worker > 0 and torch.cuda.is_available()
    return Worker(device="cuda") if has_gpu else ALONE
