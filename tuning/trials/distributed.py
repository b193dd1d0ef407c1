"""Several data-parallel workers for one training, by Ray Train inside a trial's own process.

A Ray Train run takes 24 to 32 s to start (infra/decisions.md), so a training of one worker runs where it is asked for.
"""

from __future__ import annotations

from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from tuning.trials.measure import Figures, Job, Shared


def measure_with_workers(
    job: Job,
    shared: Shared,
    *,
    workers: int,
    gpus_per_worker: float,
    objective: str,
    name: str,
    storage_path: str,
    storage: Any,
) -> Figures:
    """`tuning.trials.measure.measure` on several workers; inside a Tune trial each telling is reported to Tune.

    Args:
        job: what to train.
        shared: references.
        workers: at least 2.
        gpus_per_worker: below 1 several workers share a GPU, and exchange by gloo, for NCCL refuses that.
        objective: the figure that Tune is told as such.
        name: of the run.
        storage_path: where Ray Train keeps the run's state, a path within ``storage``.
        storage: pyarrow filesystem.

    Raises:
        ray.train.TrainingFailedError: a worker failed; `jobs.cluster.session.cause` has the reason.
    """
    trainer = TorchTrainer(
        _working(job, shared, objective),
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
            callbacks=_callbacks(),
        ),
    )
    result: Any = trainer.fit()  # typed as Train V1's Result, which has no return_value
    figures: Figures = result.return_value
    return figures


def _callbacks() -> list[Any]:
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.trainable.trainable_fn_utils import _in_tune_session  # the callback itself asks this, and raises

    if not _in_tune_session():
        return []
    return [TuneReportCallback()]  # type: ignore[no-untyped-call]  # ray ships no types


def _working(job: Job, shared: Shared, objective: str) -> Any:
    """What each worker runs; it travels by value, so that Ray Train's controller need not import the network."""

    def work() -> Figures:
        from tuning.trials.distributed import work

        return work(job, shared, objective)

    return work


def work(job: Job, shared: Shared, objective: str) -> Figures:
    """One worker's part.

    Raises:
        JobError: it cannot be trained or judged; one line.
    """
    from ray.train.torch import get_device, prepare_model

    from jobs.errors import JobError, one_line
    from model.process import prepare_process
    from tuning.trials.measure import Worker, measure, reported

    prepare_process()
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), prepare_model, get_device())

    def tell(epoch: int, figures: Figures) -> None:
        ray.train.report(reported(objective, epoch, figures))

    try:
        return measure(job, shared, tell, worker=worker)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None
