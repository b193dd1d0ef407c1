"""DifferNet's training procedure (arXiv 2008.12577): Adam on the flow, over rotated views of flawless photos.

Attention, where there is any, learns as ``attention_training`` says: not at all, beforehand on a pretext
(model.training.attention_pretext), or together with the flow (model.training.likelihood).

**Several workers.** This is plain torch. One call of ``train`` is one worker; the caller starts the process group and
gives DistributedDataParallel as ``wrap``. The order of the photos and their rotations depend on seed and epoch alone,
so every worker draws the same global batch. Each takes its share with a weight that makes the mean of their gradients
the gradient of one worker, up to rounding. There are two exceptions: dropout, where each worker drops units of its
own, and joint training (`model.training.likelihood.JointLikelihood`).

**Which epoch is kept.** The last one: to choose needs labels, which flawless photos have not. With ``patience`` and
validation photos it is the epoch of the best held-out likelihood.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from model.config import OptimizerConfig
from model.detector import AttentDifferNet
from model.network.seeding import Stream, create_stream, seed_device_generator
from model.training.attention_pretext import prepare_attention
from model.training.checkpoint import (
    PRETEXT_LOSS,
    TrainingState,
    copy_detector_tensors,
    load_detector_tensors,
    read_pretext_loss,
)
from model.training.collapse_guard import CollapseError
from model.training.epoch_monitor import EpochMonitor
from model.training.likelihood import Wrap, build_likelihood, trains_jointly
from model.training.metrics import DivergenceError, EpochMetrics
from model.training.optimizer import WorkerOptimizer
from model.training.photos import Photos, draw_order, tile_photos
from model.training.views import CachedViews, ComputedViews, TrainingViews, choose_views

Snapshot = Callable[[], TrainingState]
"""Takes the state of the training after the epoch that is reported; costs a copy of the detector and of Adam."""

OnEpoch = Callable[[EpochMetrics, Snapshot], None]

OnPretext = Callable[[TrainingState], None]
"""Takes the state of a training whose attention has just learnt its pretext; on every worker."""

Tell = Callable[[str], None]
"""Takes a remark on what the training does now."""

_DETECTOR, _BEST = "detector.", "best."  # prefixes of names in a TrainingState


def leave_unwrapped(module: nn.Module) -> nn.Module:
    """Returns the module as it is, for one worker; several workers give DistributedDataParallel instead."""
    return module


def drop_state(_state: TrainingState) -> None:
    """Keeps nothing."""


def stay_silent(_remark: str) -> None:
    """Shows nothing."""


def train(
    detector: AttentDifferNet,
    photos: Photos,
    *,
    optimizer: OptimizerConfig,
    on_epoch: OnEpoch,
    validation: Photos | None = None,
    attention: Mapping[str, Tensor] | None = None,
    features: Tensor | None = None,
    resume: TrainingState | None = None,
    on_pretext: OnPretext = drop_state,
    tell: Tell = stay_silent,
    rank: int = 0,
    world_size: int = 1,
    wrap: Wrap = leave_unwrapped,
) -> list[EpochMetrics]:
    """Trains attention as configured, fits the feature scaling, then trains the flow, all in place.

    On one worker the outcome depends on detector, photos and optimizer alone, bit for bit on a CPU, also where it was
    interrupted and resumed. Torch's global random state is neither read nor left changed.

    Args:
        detector: trained on the device its flow lies on; left in evaluation mode.
        photos: N >= 1 flawless photos, the same on every worker; with tiles, each tile counts as a photo from here on.
        optimizer: epochs, global batch size in photos, and Adam's settings.
        on_epoch: called after every epoch, on every worker; first with epoch 0 where there is an attention pretext.
        validation: flawless photos that are not among ``photos``; they decide when to stop, by ``optimizer.patience``.
        attention: what `pretrain_attention` gave for a detector of the same configuration; None learns the pretext
            from ``photos``.
        features: of ``photos`` at all scoring angles by this very detector, its attention ready, as
            `model.training.views.compute_view_features` gives them. Then neither is attention prepared nor are
            features computed; None does both.
        resume: a snapshot of the same training, or what ``on_pretext`` got; it goes on after that epoch.
        on_pretext: called once attention has learnt its pretext, before features are computed: both take minutes.
        tell: called with remarks while the pretext is learnt.
        rank: this worker, 0 <= rank < world_size.
        world_size: number of workers.
        wrap: gets the module that is trained, returns the module to call and to differentiate.

    Returns:
        Metrics of all epochs, those before ``resume`` included.

    Raises:
        DivergenceError: the loss or a weight is no longer finite, found at the end of the epoch.
        CollapseError: attention has collapsed the features.
        ValueError: no photos or of another shape or type, a rank outside the world, or features that cannot be scaled.
    """
    if len(photos) == 0:
        raise ValueError("training needs at least one flawless photo, got none")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}")
    detector.eval()
    started_s = time.perf_counter()
    photos = tile_photos(photos, detector.config)
    validation = None if validation is None else tile_photos(validation, detector.config)
    features = None if features is None else features.reshape(len(photos), -1, features.shape[-1])
    pretext = None
    if resume is not None:
        load_detector_tensors(detector, resume.tensors, prefix=_DETECTOR)
        pretext = read_pretext_loss(resume)
    elif detector.config.attention and features is None:
        pretext = prepare_attention(detector, photos, attention, tell=tell)
        if pretext is not None:
            on_pretext(keep_pretext(detector, pretext))
    training = _Training(
        detector,
        photos,
        validation=validation,
        optimizer=optimizer,
        features=features,
        resume=resume,
        on_epoch=on_epoch,
        rank=rank,
        world_size=world_size,
        wrap=wrap,
    )
    if pretext is not None:
        training.report(0, loss=pretext, started_s=started_s, views=0)
    training.run()
    return training.history


def keep_pretext(detector: AttentDifferNet, loss: float) -> TrainingState:
    """Returns the state of a training right after its pretext, before its features are scaled."""
    loss_tensor = torch.tensor(loss, dtype=torch.float64)
    return TrainingState(0, {**copy_detector_tensors(detector, prefix=_DETECTOR), PRETEXT_LOSS: loss_tensor})


class _Training:
    """A training under way on one worker.

    Attributes:
        history: metrics of the finished epochs.
    """

    def __init__(
        self,
        detector: AttentDifferNet,
        photos: Photos,
        *,
        validation: Photos | None,
        optimizer: OptimizerConfig,
        features: Tensor | None,
        resume: TrainingState | None,
        on_epoch: OnEpoch,
        rank: int,
        world_size: int,
        wrap: Wrap,
    ) -> None:
        seed = detector.config.seed
        self._detector, self._optimizer, self._rank = detector, optimizer, rank
        self._photos, self._on_epoch = photos, on_epoch
        self._views = build_views(detector, photos, features)
        is_new = resume is None or not resume.history
        if is_new and detector.config.feature_scaling != "none":
            detector.fit_feature_scaling(self._views.draw_scaling_sample(create_stream(seed, Stream.SCALING)))
        self._monitor = EpochMonitor(detector, photos, validation=validation, rng=create_stream(seed, Stream.WATCH))
        objective = build_likelihood(detector, self._views, wrap=wrap)
        self._steps = WorkerOptimizer(
            objective, optimizer, device=detector.image_mean.device, rank=rank, world_size=world_size
        )
        self._best: dict[str, Tensor] = {}
        self.history: list[EpochMetrics] = []
        if resume is not None:
            self._steps.load_state(resume.tensors)
            self._best = {key: value for key, value in resume.tensors.items() if key.startswith(_BEST)}
            self.history = [EpochMetrics.from_json(row) for row in resume.history]

    def run(self) -> None:
        """Trains all epochs that are left, then loads the best one's weights where training may stop early."""
        first = self.history[-1].epoch + 1 if self.history else 1
        for epoch in range(first, self._optimizer.epochs + 1):
            if self._has_stopped():
                break
            self._train_epoch(epoch)
        if self._best:
            load_detector_tensors(self._detector, self._best, prefix=_BEST)
        self._detector.eval()

    def _train_epoch(self, epoch: int) -> None:
        started_s = time.perf_counter()
        seed, device = self._detector.config.seed, self._detector.image_mean.device
        rng, dropout = create_stream(seed, Stream.EPOCHS, epoch), create_stream(seed, Stream.DROPOUT, epoch, self._rank)
        self._detector.flow.train()
        try:
            with seed_device_generator(device, seed=int(dropout.integers(2**63))):
                order = draw_order(rng, self._photos, shuffle=self._optimizer.shuffle)
                drawn = self._views.draw(rng)
                loss = self._steps.train_epoch(order, drawn)
        finally:
            self._detector.eval()
        if not (math.isfinite(loss) and self._steps.is_finite()):
            raise DivergenceError(epoch, loss, learning_rate=self._optimizer.learning_rate)
        self.report(epoch, loss=loss, started_s=started_s, views=drawn.numel())

    def report(self, epoch: int, *, loss: float, started_s: float, views: int) -> None:
        """Looks at the features, keeps the epoch's metrics and gives them to ``on_epoch``.

        Raises:
            CollapseError: the guard is on and the features have collapsed.
        """
        seconds = time.perf_counter() - started_s
        health = self._monitor.measure_health()
        if health.has_collapsed and self._is_guarded():
            raise CollapseError(epoch, health, by_pretext=not trains_jointly(self._detector))
        metrics = EpochMetrics(epoch, loss, self._monitor.compute_validation_loss(), seconds, views / seconds, health)
        self.history.append(metrics)
        if self._optimizer.patience is not None and self._find_best_epoch() == epoch:
            self._best = copy_detector_tensors(self._detector, prefix=_BEST)
        self._on_epoch(metrics, self._take_snapshot)

    def _is_guarded(self) -> bool:
        config = self._detector.config
        return config.collapse_guard and config.attention_training != "frozen" and bool(config.attention)

    def _find_best_epoch(self) -> int | None:
        """Returns the epoch of the lowest validation loss, the pretext left out; None without validation."""
        known = [
            (row.validation_loss, row.epoch) for row in self.history if row.epoch and row.validation_loss is not None
        ]
        return min(known)[1] if known else None

    def _has_stopped(self) -> bool:
        best, patience = self._find_best_epoch(), self._optimizer.patience
        return best is not None and patience is not None and self.history[-1].epoch - best >= patience

    def _take_snapshot(self) -> TrainingState:
        tensors = {**copy_detector_tensors(self._detector, prefix=_DETECTOR), **self._steps.copy_state(), **self._best}
        return TrainingState(self.history[-1].epoch, tensors, [row.to_json() for row in self.history])


def build_views(detector: AttentDifferNet, photos: Photos, features: Tensor | None) -> TrainingViews:
    """Builds the views of a training; ``features`` are used where they are given."""
    if trains_jointly(detector):
        return ComputedViews(detector, photos)
    return choose_views(detector, photos) if features is None else CachedViews(features, detector.config.train_views)
