"""Trains one configuration on several data-parallel workers, by Ray Train inside a trial's own process.

A Ray Train run takes 24 to 32 s to start (measured), so a training of one worker runs where it is asked for.
"""

from __future__ import annotations

from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.trainable.trainable_fn_utils import _in_tune_session  # the callback itself asks this

from jobs.errors import JobError, one_line
from model.process import prepare_process
from tuning.trials.measure import Metrics, SearchResources, TrainingJob, TrainingWorker, measure, to_tune_report


def measure_with_workers(
    job: TrainingJob,
    resources: SearchResources,
    *,
    workers: int,
    gpus_per_worker: float,
    objective: str,
    name: str,
    storage_path: str,
    storage: Any,
) -> Metrics:
    """Trains and judges on several workers; inside a Tune trial each report goes to Tune.

    Args:
        job: what to train.
        resources: references.
        workers: at least 2.
        gpus_per_worker: below 1 several workers share a GPU, and exchange by gloo, for NCCL refuses that.
        objective: the metric that Tune is told as such.
        name: of the run.
        storage_path: where Ray Train keeps the run's state, a path within ``storage``.
        storage: pyarrow filesystem.

    Raises:
        ray.train.TrainingFailedError: a worker failed; `jobs.cluster.session.explain_error` has the reason.
    """
    trainer = TorchTrainer(
        make_train_loop(job, resources, objective),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker={"CPU": 1, **({"GPU": gpus_per_worker} if gpus_per_worker else {})},
        ),
        torch_config=TorchConfig(backend="gloo" if gpus_per_worker < 1 else "nccl"),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=storage,
            failure_config=ray.train.FailureConfig(max_failures=0),
            callbacks=make_callbacks(),
        ),
    )
    result: Any = trainer.fit()  # typed as Train V1's Result, which has no return_value
    metrics: Metrics = result.return_value
    return metrics


def make_callbacks() -> list[Any]:
    """Makes the callback that reports to Ray Tune; none outside a trial, where it would raise."""
    if not _in_tune_session():
        return []
    return [TuneReportCallback()]  # type: ignore[no-untyped-call]  # ray ships no types


def make_train_loop(job: TrainingJob, resources: SearchResources, objective: str) -> Any:
    """Makes what each worker runs."""

    def run_loop() -> Metrics:
        # It travels by value: with this import inside, Ray Train's controller, which reads it too, saves 1.4 s of CPU
        # and 158 MB for the network that it never uses.
        from tuning.trials.distributed import train_on_worker

        return train_on_worker(job, resources, objective)

    return run_loop


def train_on_worker(job: TrainingJob, resources: SearchResources, objective: str) -> Metrics:
    """Trains and judges as one of several workers.

    Raises:
        JobError: it cannot be trained or judged; one line.
    """
    prepare_process()
    context = ray.train.get_context()
    worker = TrainingWorker(context.get_world_rank(), context.get_world_size(), prepare_model, get_device())

    def report(epoch: int, metrics: Metrics) -> None:
        ray.train.report(to_tune_report(objective, epoch, metrics))

    try:
        return measure(job, resources, report, worker=worker)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None
