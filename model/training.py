"""DifferNet's training procedure (arXiv 2008.12577): Adam on the flow, over rotated views of flawless photos.

The backbone and its attention stay frozen; the number of epochs is fixed and the last one is kept, for choosing an
epoch needs labels that a training set of flawless photos does not have. Plain torch: one call of ``train`` is one
worker, and whoever starts several of them wraps the flow in DistributedDataParallel.

**The law of several workers.** The order of the photos and their rotations come from the seed and the epoch alone, so
every worker draws the same global batch, and takes its share of it with a weight such that the mean of the gradients
over workers is the gradient one worker would have computed (up to the rounding of a sum). Dropout is the exception:
each worker drops units of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.config import OptimiserConfig
from model.detector import AttentDifferNet
from model.flow import negative_log_likelihood
from model.views import TrainingViews, training_views

# Every random draw has a stream of its own: with a sum like seed + epoch, seeds 0 and 1 would share all epochs but one.
_EPOCHS, _SCALING, _DROPOUT, _CALIBRATION = range(4)


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch did on one worker.

    Attributes:
        epoch: from 1 to OptimiserConfig.epochs.
        loss: mean negative log-likelihood over this worker's views, in nats per dimension.
        seconds: wall time.
        views_per_s: this worker's rotated views per second.
    """

    epoch: int
    loss: float
    seconds: float
    views_per_s: float


class TrainingDiverged(RuntimeError):  # noqa: N818  # the name says what happened, as StopIteration does
    """The loss or a weight of the flow is not finite; the detector is worthless and must not be saved.

    Attributes:
        epoch: the epoch it was found in, from 1.
        loss: mean loss of that epoch, finite if only a weight is not.
    """

    def __init__(self, epoch: int, loss: float, *, learning_rate: float) -> None:
        """Says where it happened and what to change."""
        what = f"the mean loss is {loss}" if not math.isfinite(loss) else f"a weight is not finite (loss {loss:.4g})"
        super().__init__(
            f"training diverged in epoch {epoch}: {what}; lower learning_rate (now {learning_rate:g}) "
            "or set feature_scaling to global or channel"
        )
        self.epoch = epoch
        self.loss = loss


def unwrapped(flow: nn.Module) -> nn.Module:
    """The flow as it is, for one worker; several workers give DistributedDataParallel instead."""
    return flow


def train(
    detector: AttentDifferNet,
    images: Tensor,
    *,
    optimiser: OptimiserConfig,
    on_epoch: Callable[[EpochMetrics], None],
    rank: int = 0,
    world_size: int = 1,
    wrap_flow: Callable[[nn.Module], nn.Module] = unwrapped,
) -> list[EpochMetrics]:
    """Fits the feature scaling, then the flow of ``detector``, in place; leaves it in evaluation mode.

    On one worker the outcome depends on detector, images and optimiser alone, bit for bit on a CPU: torch's global
    random state is neither read nor left changed.

    Args:
        detector: trained on the device its flow lies on.
        images: (N, 3, S, S) uint8 flawless photos, N >= 1, on any device; the same on every worker.
        optimiser: epochs, global batch size in photos, and Adam's settings.
        on_epoch: called after every epoch, on every worker.
        rank: this worker, 0 <= rank < world_size.
        world_size: number of workers.
        wrap_flow: gets the flow, returns the module to call and to differentiate.

    Raises:
        TrainingDiverged: the loss or a weight is no longer finite, found at the end of the epoch.
        ValueError: no images or of another shape or type, a rank outside the world, or features that cannot be scaled.
    """
    if len(images) == 0:
        raise ValueError("training needs at least one flawless photo, got none")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie in 0..{world_size - 1}, got {rank}")
    detector.eval()
    views = training_views(detector, images)
    if detector.config.feature_scaling != "none":
        detector.fit_feature_scaling(views.scaling_sample(_rng(detector.config.seed, _SCALING)))
    flow = wrap_flow(detector.flow).train()
    worker = _Worker(detector, flow, views, count=len(images), optimiser=optimiser, rank=rank, world_size=world_size)
    try:
        return [worker.epoch(epoch, on_epoch) for epoch in range(1, optimiser.epochs + 1)]
    finally:
        detector.eval()


def split_calibration(count: int, *, fraction: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Splits ``count`` flawless photos at random into those that train and those that calibrate.

    Args:
        count: number of photos, at least 2.
        fraction: share that calibrates, in (0, 1), rounded to whole photos and kept within 1..count - 1.
        seed: the same seed gives the same split.

    Returns:
        Ascending training indices and ascending calibration indices, disjoint, together 0..count - 1.

    Raises:
        ValueError: fewer than two photos, or a fraction outside (0, 1).
    """
    if count < 2:
        raise ValueError(f"training and calibration need at least 2 flawless photos, got {count}")
    if not 0 < fraction < 1:
        raise ValueError(f"the calibration fraction must lie between 0 and 1, both excluded, got {fraction}")
    held_out = min(max(round(count * fraction), 1), count - 1)
    order = _rng(seed, _CALIBRATION).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def rank_share(batch: Tensor, *, rank: int, world_size: int) -> tuple[Tensor, float]:
    """One worker's part of a global batch, and the weight of its mean loss.

    Workers may get one photo more or less than others, and DistributedDataParallel takes the plain mean of their
    gradients: the weight len(share) * world_size / len(batch) makes that mean the gradient of the whole batch. A worker
    for whom nothing is left repeats the first photo with weight 0, because it must take part in exchanging gradients.

    Args:
        batch: (B,) photo indices, B >= 1, the same on every worker.
        rank: this worker.
        world_size: number of workers.
    """
    share = batch[rank::world_size]
    if len(share) == 0:
        return batch[:1], 0.0
    return share, len(share) * world_size / len(batch)


class _Worker:
    """One worker's optimiser and its part of the photos."""

    def __init__(
        self,
        detector: AttentDifferNet,
        flow: nn.Module,
        views: TrainingViews,
        *,
        count: int,
        optimiser: OptimiserConfig,
        rank: int,
        world_size: int,
    ) -> None:
        self._detector, self._flow, self._views, self._count = detector, flow, views, count
        self._batch_size, self._rank, self._world_size = optimiser.batch_size, rank, world_size
        self._weights = [weight for weight in flow.parameters() if weight.requires_grad]
        self._adam = torch.optim.Adam(
            self._weights,
            lr=optimiser.learning_rate,
            betas=optimiser.betas,
            eps=optimiser.eps,
            weight_decay=optimiser.weight_decay,
        )
        self._learning_rate = optimiser.learning_rate

    def epoch(self, epoch: int, on_epoch: Callable[[EpochMetrics], None]) -> EpochMetrics:
        started_s = time.perf_counter()
        seed = self._detector.config.seed
        dropout = _rng(seed, _DROPOUT, epoch, self._rank)
        with _global_generator(self._weights[0].device, seed=int(dropout.integers(2**63))):
            loss, views = self._pass(_rng(seed, _EPOCHS, epoch))
        # Once per epoch: to look at the loss of every step would stall the device, and leave other workers waiting for
        # this one. The weights count too, for the last step's may be ruined while its loss was still finite.
        if not (math.isfinite(loss) and all(bool(weight.isfinite().all()) for weight in self._weights)):
            raise TrainingDiverged(epoch, loss, learning_rate=self._learning_rate)
        seconds = time.perf_counter() - started_s
        metrics = EpochMetrics(epoch=epoch, loss=loss, seconds=seconds, views_per_s=views / seconds)
        on_epoch(metrics)
        return metrics

    def _pass(self, rng: np.random.Generator) -> tuple[float, int]:
        """One pass over the photos: this worker's mean loss and its number of views."""
        order = torch.from_numpy(rng.permutation(self._count))
        drawn = self._views.draw(rng)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._weights[0].device)
        photos_seen = 0
        for batch in torch.split(order, self._batch_size):
            photos, weight = rank_share(batch, rank=self._rank, world_size=self._world_size)
            loss_sum += self._step(self._views.pooled(photos, drawn[photos]), weight=weight) * len(photos)
            photos_seen += len(photos)
        return float(loss_sum) / photos_seen, photos_seen * drawn.shape[1]

    def _step(self, pooled: Tensor, *, weight: float) -> Tensor:
        loss = negative_log_likelihood(*self._flow(self._detector.scale_features(pooled)))
        self._adam.zero_grad()
        torch.autograd.backward(loss * weight)
        self._adam.step()
        return loss.detach()


def _rng(seed: int, *stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, *stream])


@contextmanager
def _global_generator(device: torch.device, *, seed: int) -> Iterator[None]:
    """Seeds the generator that dropout on ``device`` takes, and gives it its state back; no other is touched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
