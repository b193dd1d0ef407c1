"""What one Ray Train worker does: train from the last checkpoint on, score its share, register."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.collective
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor

from jobs.detectors import registry
from jobs.errors import one_line
from jobs.training.config import TrainConfig
from jobs.training.photos import BlockPhotos
from jobs.training.units import Task
from model.artifact import save_artifact
from model.detector import AttentDifferNet
from model.network.rotation import list_scoring_angles
from model.packed.detector import build_scorer
from model.process import prepare_process
from model.statistics.calibration import Calibration
from model.training.checkpoint import TrainingState, load_state, save_state
from model.training.collapse_guard import CollapseError
from model.training.held_out_loss import standardize_loss
from model.training.loop import Snapshot, train
from model.training.metrics import DivergenceError, EpochMetrics
from model.training.views import compute_view_features

LARGEST_CHECKPOINT_SHARE = 0.05
"""Of a training's time."""
_SCORED_VECTORS = 1024
_COMPARED_PHOTOS = 256


def work(task: Task) -> dict[str, Any]:
    """Trains this worker's share of every batch, then scores its share of the calibration photos.

    Returns:
        On the first worker ``detector_id``, of the detector that it has registered, and ``figures`` of its training.
        Where training can only fail again: ``refused``, one line.
    """
    prepare_process()
    try:
        return _trained(task, TrainConfig.model_validate(task.config))
    except (DivergenceError, CollapseError, ValueError) as error:
        return {"refused": one_line(error)}


def _trained(task: Task, config: TrainConfig) -> dict[str, Any]:
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    resume = _last_state()
    epochs_log = _Epochs(task, config, rank=rank, is_alone=world_size == 1)
    epochs_log.resumed(resume)
    detector = _prepared(config, ray.get(task.weights))
    epochs = train(
        detector,
        task.training,
        optimizer=config.optimizer,
        on_epoch=epochs_log,
        validation=task.validation,
        resume=resume,
        rank=rank,
        world_size=world_size,
        wrap=prepare_model,
    )
    figures = _figures(config, detector, task, epochs) | {"resumed_after_epoch": resume.epoch if resume else None}
    scores = _gathered(_scores(detector, task.calibration, rank=rank, world_size=world_size), world_size)
    ray.train.report({"loss": figures["loss"], "validation_loss": figures["validation_loss"]})
    if rank != 0:
        return {}
    return {"detector_id": _register(config, detector, scores, metrics=task.metrics | figures), "figures": figures}


def _prepared(config: TrainConfig, weights: dict[str, Tensor] | None) -> AttentDifferNet:
    detector = AttentDifferNet(config.detector)
    if weights is not None:
        detector.backbone.load_features(weights)
    return detector.to(get_device())


def _last_state() -> TrainingState | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return load_state(Path(folder))


@dataclass
class _Epochs:
    """Shows every epoch, and keeps one in a checkpoint now and then."""

    task: Task
    config: TrainConfig
    rank: int
    is_alone: bool
    _finished_at_s: float = field(default_factory=time.monotonic)
    _cost_s: float = 0.0

    def resumed(self, state: TrainingState | None) -> None:
        """Counts the epochs that an earlier driver has shown."""
        if state is not None and self.rank == 0:
            self.task.report.reach(self.task.name, state.epoch, f"{self.task.name}: resumed after epoch {state.epoch}")

    def __call__(self, metrics: EpochMetrics, snapshot: Snapshot) -> None:
        """What `model.training.loop.train` calls after an epoch."""
        if self.rank == 0:
            self.task.report.reach(self.task.name, metrics.epoch, f"{self.task.name}: {_line(metrics)}")
        if self._is_due():
            self._keep(metrics, snapshot)

    def _is_due(self) -> bool:
        """The same answer on all workers, for `ray.train.report` waits until every one has called it.

        Reporting every epoch would do as well, but the controller takes one report in two seconds.
        """
        every_s = self.config.checkpoint_every_s
        passed_s = time.monotonic() - self._finished_at_s
        is_due = passed_s >= every_s and (every_s == 0 or passed_s * LARGEST_CHECKPOINT_SHARE >= self._cost_s)
        return is_due if self.is_alone else ray.train.collective.broadcast_from_rank_zero(is_due)

    def _keep(self, metrics: EpochMetrics, snapshot: Snapshot) -> None:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = None
            if self.rank == 0:
                save_state(Path(scratch), snapshot())
                checkpoint = ray.train.Checkpoint.from_directory(scratch)
            ray.train.report(metrics.to_json(), checkpoint=checkpoint)
        self._finished_at_s = time.monotonic()
        self._cost_s = self._finished_at_s - started_s


def _line(metrics: EpochMetrics) -> str:
    parts = [f"loss {metrics.loss:.4f}"]
    if metrics.validation_loss is not None:
        parts.append(f"validation {metrics.validation_loss:.4f}")
    if metrics.health.gate_mean is not None:
        parts.append(f"gates {metrics.health.gate_mean:.2f}, feature std {metrics.health.std_ratio:.2f} of plain")
    return ", ".join([*parts, f"{metrics.views_per_s:.0f} views/s"])


def _figures(
    config: TrainConfig, detector: AttentDifferNet, task: Task, epochs: Sequence[EpochMetrics]
) -> dict[str, Any]:
    """What metrics.json says of the training; every worker takes part in computing it."""
    flow_epochs = [epoch for epoch in epochs if epoch.epoch > 0]
    kept = _kept(flow_epochs, early=config.optimizer.patience is not None)
    validation_loss = None
    if kept.validation_loss is not None:
        step = -(-len(task.training) // _COMPARED_PHOTOS)
        some = task.training.subset(np.arange(0, len(task.training), step))
        features = compute_view_features(detector, some, angles=list_scoring_angles(config.detector.train_views))
        validation_loss = standardize_loss(detector, kept.validation_loss, pooled=features.flatten(0, 1))
    return {
        "epochs": len(flow_epochs),
        "kept_epoch": kept.epoch,
        "loss": kept.loss,
        "loss_by_epoch": [epoch.loss for epoch in flow_epochs],
        "validation_loss": validation_loss,
        "validation_loss_by_epoch": [epoch.validation_loss for epoch in flow_epochs],
        "health": kept.to_json()["health"],
        "problems": kept.health.list_problems(),
        "seconds_by_epoch": [epoch.seconds for epoch in flow_epochs],
        "views_per_s": kept.views_per_s,
    }


def _kept(epochs: Sequence[EpochMetrics], *, early: bool) -> EpochMetrics:
    """The epoch whose weights the detector has: the last, or with early stopping the best."""
    judged = [(epoch.validation_loss, epoch.epoch, epoch) for epoch in epochs if epoch.validation_loss is not None]
    return min(judged)[-1] if early and judged else epochs[-1]


def _scores(detector: AttentDifferNet, photos: BlockPhotos, *, rank: int, world_size: int) -> list[float]:
    """Scores of every ``world_size``-th photo; as many at a time as the flow likes at least."""
    mine = torch.arange(len(photos))[rank::world_size]
    batches = torch.split(mine, max(1, _SCORED_VECTORS // detector.config.views)) if len(mine) else ()
    scorer = build_scorer(detector)
    return [float(score) for batch in batches for score in scorer.score(photos.take(batch))]


def _gathered(scores: list[float], world_size: int) -> list[float]:
    """The scores of all workers, on every worker."""
    if world_size == 1:
        return scores
    parts: list[list[float]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(parts, scores)
    return [score for part in parts for score in part]


def _register(
    config: TrainConfig, detector: AttentDifferNet, scores: Sequence[float], *, metrics: dict[str, Any]
) -> str:
    """Saves the artifact and puts it into the registry; returns its id."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        save_artifact(folder, detector.cpu(), calibration=Calibration(scores=tuple(scores)), metrics=metrics)
        return registry.put(config.detectors, config.category, folder=folder)
