"""One configuration, trained with one or more seeds and judged: the work of a trial and of a finalist."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet, build_detector
from model.flops import count_scoring_gflop
from model.training.likelihood import Wrap
from model.training.loop import Snapshot, leave_unwrapped, train
from model.training.metrics import EpochMetrics
from model.training.photos import InMemory
from tuning.trials.features import Extractor, Features
from tuning.trials.judge import Judgement, average_seeds, judge
from tuning.trials.photos import SearchPhotos, to_tensor

Metrics = dict[str, float | None]
ReportMetrics = Callable[[int, Metrics], None]
"""Called with an epoch and the metrics after it."""


@dataclass(frozen=True)
class SearchResources:
    """What all trainings of a search share, as references into Ray's object store.

    Attributes:
        photos: image size in pixels -> reference to SearchPhotos.
        photos_hash: their name.
        weights: reference to the backbone's weights by name, or to None.
        cache: handle of a `tuning.trials.features.FeatureCache`.
    """

    photos: Mapping[int, Any]
    photos_hash: str
    weights: Any
    cache: Any


@dataclass(frozen=True)
class TrainingJob:
    """What one training does; plain data.

    Attributes:
        detector: its ``seed`` is not used.
        optimizer: of the flow.
        seeds: trained one after the other, at least one.
        rungs: epochs after which the first seed's metrics are told; all seeds' are told after the last epoch.
    """

    detector: DetectorConfig
    optimizer: OptimizerConfig
    seeds: Sequence[int]
    rungs: Sequence[int] = ()


@dataclass(frozen=True)
class TrainingWorker:
    """Which of several data-parallel workers this is."""

    rank: int = 0
    world_size: int = 1
    wrap: Wrap = leave_unwrapped
    device: str | torch.device = "cpu"


SINGLE_WORKER = TrainingWorker()


def measure(
    job: TrainingJob, shared: SearchResources, tell: ReportMetrics, *, worker: TrainingWorker = SINGLE_WORKER
) -> Metrics:
    """Trains and judges one configuration; every one of several workers gets the same metrics.

    Returns:
        Those of `tuning.trials.judge`; ``gflop``, the cost of scoring a photo; ``cpu_s``, CPU seconds of this process.

    Raises:
        DivergenceError, CollapseError, ValueError: it cannot be trained or judged.
    """
    began_s, judgements, gflop = time.process_time(), [], 0.0
    for position, seed in enumerate(job.seeds):
        config = job.detector.model_copy(update={"seed": seed})
        photos: SearchPhotos = ray.get(shared.photos[config.image_size])
        detector = build_detector(config, ray.get(shared.weights)).to(worker.device)
        gflop = gflop or count_scoring_gflop(detector)
        rungs = set(job.rungs) - {job.optimizer.epochs} if position == 0 else set()

        def report_rung(epoch: int, found: Judgement, cost: float = gflop) -> None:
            tell(epoch, {**found.metrics, "gflop": cost, "cpu_s": time.process_time() - began_s})

        extractor = Extractor(photos, shared.photos_hash, shared.cache)
        found, _ = train_and_judge(detector, job.optimizer, extractor, rungs=rungs, tell=report_rung, worker=worker)
        judgements.append(found)
    metrics: Metrics = {**average_seeds(judgements), "gflop": gflop, "cpu_s": time.process_time() - began_s}
    tell(job.optimizer.epochs, metrics)
    return metrics


def train_and_judge(
    detector: AttentDifferNet,
    optimizer: OptimizerConfig,
    extractor: Extractor,
    *,
    rungs: set[int] | frozenset[int] = frozenset(),
    tell: Callable[[int, Judgement], None] | None = None,
    worker: TrainingWorker = SINGLE_WORKER,
) -> tuple[Judgement, list[EpochMetrics]]:
    """Trains a detector in place and judges it after its last epoch, and after those of ``rungs``, which are told.

    Raises:
        DivergenceError, CollapseError, ValueError: see `measure`.
    """
    labels = extractor.photos.labels
    features = extractor.prepare(detector)

    def on_epoch(epoch: EpochMetrics, snapshot: Snapshot) -> None:
        if tell is not None and epoch.epoch in rungs:
            tell(epoch.epoch, judge(detector, features or extractor.extract(detector), labels))

    history = train_flow(detector, optimizer, extractor, features, on_epoch=on_epoch, worker=worker)
    return judge(detector, features or extractor.extract(detector), labels), history


def train_flow(
    detector: AttentDifferNet,
    optimizer: OptimizerConfig,
    extractor: Extractor,
    features: Features | None,
    *,
    on_epoch: Callable[[EpochMetrics, Snapshot], None],
    worker: TrainingWorker = SINGLE_WORKER,
) -> list[EpochMetrics]:
    """Trains a detector in place, on features that are there already where there are any.

    Raises:
        DivergenceError, CollapseError, ValueError: see `measure`.
    """
    is_kept = features is not None and detector.config.train_angles == "scoring"

    return train(
        detector,
        InMemory(to_tensor(extractor.photos.train)),
        optimizer=optimizer,
        on_epoch=on_epoch,
        attention=detector.backbone.attention.state_dict() if features is not None else None,
        features=features.train if features is not None and is_kept else None,
        rank=worker.rank,
        world_size=worker.world_size,
        wrap=worker.wrap,
    )


EPOCH = "epoch"


OBJECTIVE = "objective"


COST = "gflop"


def to_tune_report(objective: str, epoch: int, metrics: Metrics) -> dict[str, float]:
    """Converts the metrics after an epoch to what Tune gets.

    Raises:
        ValueError: there is no metric to judge by.
    """
    value = metrics.get(objective)
    if value is None:
        raise ValueError(f"the objective {objective} could not be computed")
    known = {name: metric for name, metric in metrics.items() if metric is not None}
    return {EPOCH: epoch, OBJECTIVE: value, **known}
