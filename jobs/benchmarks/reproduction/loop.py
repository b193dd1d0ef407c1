"""The training loop of DifferNet's authors, written plainly on kept features, and its AUROC after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.benchmarks.differnet import make_differnet_optimizer
from jobs.benchmarks.reproduction.features import ViewFeatures
from model.detector import AttentDifferNet
from model.network.flow import compute_mean_squared_latents, compute_nll
from model.network.scaling import fit_scaling
from model.statistics.evaluation import compute_auroc

BATCH_PHOTOS = 24
VIEWS_PER_PHOTO = 4


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        epoch: from 1.
        loss: mean over its steps, in nats per dimension.
        auroc: of the test photos, in 0..1.
        cpu_s: CPU seconds since the beginning.
    """

    epoch: int
    loss: float
    auroc: float
    cpu_s: float


def train_as_authors(
    detector: AttentDifferNet, features: ViewFeatures, *, epochs: int, seed: int, on_epoch: Callable[[Epoch], None]
) -> None:
    """Trains the flow of ``detector`` on features, and tests it after every epoch.

    The authors test after every eighth. Nothing that is tested changes the training.

    Args:
        detector: untrained, on any device.
        features: of the recipe; its scaling, if any, is fitted to all training views.
        epochs: passes over the training photos.
        seed: of the order of the photos and of their views.
        on_epoch: is told of each epoch.
    """
    device = detector.image_mean.device
    detector.fit_feature_scaling(features.train.flatten(0, 1).to(device))
    with torch.no_grad():
        train, test = (detector.scale_features(part.to(device)) for part in (features.train, features.test))
    adam, generator = make_differnet_optimizer(detector), torch.Generator().manual_seed(seed)
    began_s = time.process_time()
    for number in range(1, epochs + 1):
        loss = train_epoch(detector, adam, train, generator)
        auroc = measure_auroc(detector, test, features.is_defective)
        on_epoch(Epoch(number, loss, auroc, time.process_time() - began_s))


def train_epoch(
    detector: AttentDifferNet, adam: torch.optim.Optimizer, train: Tensor, generator: torch.Generator
) -> float:
    """Takes one pass over the photos (N, K, D), 24 at a time in 4 of their views; returns the mean loss of a step."""
    photos, kept, width = train.shape
    losses = []
    for batch in torch.split(torch.randperm(photos, generator=generator), BATCH_PHOTOS):
        drawn = torch.rand(len(batch), kept, generator=generator).argsort(1)[:, :VIEWS_PER_PHOTO]
        vectors = train[batch[:, None].to(train.device), drawn.to(train.device)].reshape(-1, width)
        adam.zero_grad()
        loss = compute_nll(*detector.flow(vectors))
        torch.autograd.backward(loss)
        adam.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


@torch.no_grad()
def measure_auroc(detector: AttentDifferNet, test: Tensor, is_defective: Tensor) -> float:
    """Returns the AUROC of the mean squared latents over the views of test photos, scaled features (M, T, D)."""
    squared = compute_mean_squared_latents(detector.flow.latents, test.flatten(0, 1))
    scores = squared.view(len(test), -1).mean(1).cpu()
    return compute_auroc(is_defective.numpy(), scores.numpy())


def measure_gaussian(features: ViewFeatures) -> float:
    """Returns the AUROC of the squared Mahalanobis distance, the mean over views: what a flow has to beat."""
    scaling = fit_scaling("whiten", features.train.flatten(0, 1))
    scores = scaling.apply(features.test).double().square().mean((1, 2))
    return compute_auroc(features.is_defective.numpy(), scores.numpy())
