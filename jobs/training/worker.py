"""What one Ray Train worker does: train from the last checkpoint on, score its share, register."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from jobs.cluster.progress import format_duration
from jobs.detectors.registration import register_detector, score_photos
from jobs.errors import one_line
from jobs.training.config import TrainConfig
from jobs.training.epoch_log import EpochLog
from jobs.training.history import describe_epochs, find_kept_epoch
from jobs.training.photos import BlockPhotos
from jobs.training.units import TrainingTask
from model.detector import AttentDifferNet, build_detector
from model.localization.fitting import fit_positions
from model.network.rotation import list_scoring_angles
from model.process import prepare_process
from model.processor import count_cores
from model.training.checkpoint import TrainingState
from model.training.collapse_guard import CollapseError
from model.training.estimate import estimate_seconds, time_work
from model.training.held_out_loss import standardize_loss
from model.training.loop import train
from model.training.metrics import DivergenceError, EpochMetrics
from model.training.unlikely_photos import find_unlikely_photos
from model.training.views import compute_view_features

UNLIKELY_PHOTOS = 50
"""Photos, at most, that a training names for a person to look at."""
COMPARED_PHOTOS = 256
"""Training photos, at most, that standardize the features of held-out ones."""


def run_worker(task: TrainingTask) -> dict[str, Any]:
    """Trains this worker's share of every batch, then scores its share of the calibration photos.

    Returns:
        On the first worker ``detector_id``, of the detector that it has registered, ``metrics`` of its training, and
        ``unlikely``, `model.training.unlikely_photos.UnlikelyPhoto` as JSON, by index of all the unit's photos.
        Where training can only fail again: ``refused``, one line.
    """
    config = TrainConfig.model_validate(task.config)
    prepare_process(threads=config.threads or choose_threads(task))
    try:
        return train_and_register(task, config)
    except (DivergenceError, CollapseError, ValueError) as error:
        return {"refused": one_line(error)}


def choose_threads(task: TrainingTask) -> int:
    """Chooses the threads of this worker: its machine's cores, divided by the training workers there."""
    here = max(task.workers_per_node, int(ray.train.get_context().get_local_world_size()))
    return max(1, count_cores() // here)


def train_and_register(task: TrainingTask, config: TrainConfig) -> dict[str, Any]:
    """Does the work of `run_worker`.

    Raises:
        DivergenceError, CollapseError, ValueError: it cannot be trained.
    """
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    log = EpochLog(task, config, rank=rank, is_alone=world_size == 1)
    resume = log.load_state()
    detector = build_detector(config.detector, ray.get(task.weights)).to(get_device())
    estimate = format_estimate(detector, task, config, resume=resume, world_size=world_size)
    log.tell(estimate)
    epochs = train(
        detector,
        task.training,
        optimizer=config.optimizer,
        on_epoch=log,
        validation=task.validation,
        resume=resume,
        on_pretext=log.keep_pretext,
        tell=lambda remark: log.tell(f"{remark}; {estimate}"),
        rank=rank,
        world_size=world_size,
        wrap=prepare_model,
    )
    fit_positions(detector, task.training)
    early = config.optimizer.patience is not None
    metrics = {
        **describe_epochs(epochs, early=early),
        "validation_loss": compute_comparable_loss(detector, task.training, find_kept_epoch(epochs, early=early)),
        "resumed_after_epoch": resume.epoch if resume else None,
        "threads": torch.get_num_threads(),
    }
    scores = gather(score_photos(detector, task.calibration, rank=rank, world_size=world_size))
    ray.train.report({"loss": metrics["loss"], "validation_loss": metrics["validation_loss"]})
    if rank != 0:
        return {}
    detector_id = register_detector(
        detector,
        scores,
        detectors=config.detectors,
        category=config.category,
        metrics=task.metrics | metrics,
    )
    found = [] if task.every_photo is None else find_unlikely_photos(detector, task.every_photo, count=UNLIKELY_PHOTOS)
    return {"detector_id": detector_id, "metrics": metrics, "unlikely": [asdict(one) for one in found]}


def format_estimate(
    detector: AttentDifferNet, task: TrainingTask, config: TrainConfig, *, resume: TrainingState | None, world_size: int
) -> str:
    """Returns how long the training is about to take, from a step that is timed now, on this worker."""
    epochs = config.optimizer.epochs - (resume.epoch if resume else 0)
    seconds = estimate_seconds(
        time_work(detector, config.optimizer, world_size=world_size),
        detector,
        config.optimizer,
        photos=len(task.training),
        scored=len(task.calibration),
        epochs=epochs,
        world_size=world_size,
        learns_pretext=resume is None and config.detector.attention_training == "pretext",
    )
    at_most = "at most" if config.optimizer.patience is not None else "about"
    return f"{at_most} {format_duration(seconds)} to train {len(task.training)} photos for {epochs} epochs"


def compute_comparable_loss(detector: AttentDifferNet, training: BlockPhotos, kept: EpochMetrics) -> float | None:
    """Returns the validation loss of the kept epoch in standardized features; None without validation photos.

    So the losses of several seeds can be compared, see `model.training.held_out_loss`.
    """
    if kept.validation_loss is None:
        return None
    step = -(-len(training) // COMPARED_PHOTOS)
    some = training.subset(np.arange(0, len(training), step))
    features = compute_view_features(detector, some, angles=list_scoring_angles(detector.config.train_views))
    return standardize_loss(detector, kept.validation_loss, pooled=features.flatten(0, 1))


def gather(scores: list[float]) -> list[float]:
    """Returns the scores of all workers, on every worker."""
    if ray.train.get_context().get_world_size() == 1:
        return scores
    parts: list[list[float]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, scores)
    return [score for part in parts for score in part]
