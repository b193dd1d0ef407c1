"""What one Ray Train worker does: train, score its share of the calibration photos, register."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import get_device, prepare_model

from jobs import registry
from jobs.config import TrainConfig
from jobs.fetch import prepare_process
from jobs.publish import versions
from model.artifact import save_artifact
from model.calibration import Calibration
from model.detector import AttentDifferNet
from model.metrics import EpochMetrics
from model.photos import InMemory
from model.splits import split_calibration
from model.training import Snapshot, train


def work(loop_config: dict[str, Any]) -> tuple[str, float] | None:
    """Trains this worker's share of every batch, then scores its share of the calibration photos.

    Args:
        loop_config: ``config``, a dumped TrainConfig; ``images``, a reference to (N, 3, S, S) uint8; ``weights``, a
            reference to the backbone's weights by name, or to None; ``report``, a jobs.progress.Report; and
            ``manifest_hash``, the name of the training data.

    Returns:
        The id of the detector that the first worker has registered, and its last epoch's loss; None on the others.
    """
    prepare_process()
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    config = TrainConfig.model_validate(loop_config["config"])
    images, weights = ray.get([loop_config["images"], loop_config["weights"]])
    detector = AttentDifferNet(config.detector)
    if weights is not None:
        detector.backbone.load_features(weights)
    detector.to(get_device())
    training, calibration = split_calibration(
        len(images), fraction=config.calibration_fraction, seed=config.detector.seed
    )

    def on_epoch(metrics: EpochMetrics, _snapshot: Snapshot) -> None:
        if rank == 0:
            note = f"loss {metrics.loss:.4f}, {metrics.views_per_s:.0f} views/s"
            loop_config["report"]({"epochs": 1}, note)

    epochs = train(
        detector,
        InMemory(torch.from_numpy(images[training])),
        optimiser=config.optimiser,
        on_epoch=on_epoch,
        rank=rank,
        world_size=world_size,
        wrap=prepare_model,
    )
    scores = _gathered(_scores(detector, images[calibration[rank::world_size]]), world_size)
    if rank != 0:
        return None
    metrics = _metrics(config, epochs) | {
        "manifest_hash": loop_config["manifest_hash"],
        "photos": {"train": len(training), "calibration": len(calibration)},
        "workers": world_size,
    }
    return _register(config, detector, scores=scores, metrics=metrics), epochs[-1].loss


def _scores(detector: AttentDifferNet, images: np.ndarray) -> list[float]:
    return [float(score) for score in detector.score(torch.from_numpy(images))]


def _gathered(scores: list[float], world_size: int) -> list[float]:
    """The scores of all workers, on every worker."""
    if world_size == 1:
        return scores
    parts: list[list[float]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(parts, scores)
    return [score for part in parts for score in part]


def _metrics(config: TrainConfig, epochs: Sequence[EpochMetrics]) -> dict[str, Any]:
    return {
        "category": config.category,
        "data": config.data,
        "loss_by_epoch": [epoch.loss for epoch in epochs if epoch.epoch > 0],
        "training_s": sum(epoch.seconds for epoch in epochs),
        "views_per_s": epochs[-1].views_per_s,
        "optimiser": config.optimiser.model_dump(mode="json"),
        "calibration_fraction": config.calibration_fraction,
        "versions": versions(),
    }


def _register(
    config: TrainConfig, detector: AttentDifferNet, *, scores: Sequence[float], metrics: dict[str, Any]
) -> str:
    """Saves the artifact and puts it into the registry; returns its id."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        save_artifact(folder, detector.cpu(), calibration=Calibration(scores=tuple(scores)), metrics=metrics)
        return registry.put(config.detectors, config.category, folder=folder)
