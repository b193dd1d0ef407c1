"""Attention that learns from flawless photos alone, before the flow: the "rank-id" pretext of infra/decisions/0013.

Gates trained by the flow's likelihood find that small features are likely ones: gate and loss fall, and AUROC with
them. Here attention learns what it is for, to make deviations stand out. Each pair is a flawless photo and the same
with synthetic defects (model.training.synthetic_defects). Let q be the log mean squared whitened feature of a photo,
whitened by the Gaussian of *plain* features, which attention cannot move. The loss ranks the defective photo higher,

    mean softplus(-sharpness * (q_defective - q_flawless)) + identity_weight * sum over gates of mean (gate - 1)^2,

the second term on flawless photos, averaged over scales. A ranking does not care for the scale of the features; the
second term ("id", as in identity) keeps flawless photos where they were. CutPaste (arXiv 2104.04015) and DRAEM (arXiv
2108.07610) learn from synthetic defects too, but by classifying or segmenting them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor

from model.detector import AttentDifferNet
from model.network.gates import (
    Statistics,
    collect_gate_statistics,
    copy_gate_statistics,
    load_gate_statistics,
    measure_gate_deviation,
    record_gates,
)
from model.network.rotation import list_scoring_angles, rotate
from model.network.scaling import Scaling, fit_scaling
from model.network.seeding import Stream, create_stream
from model.statistics.groups import number_groups
from model.training.metrics import DivergenceError
from model.training.photos import Photos, tile_photos
from model.training.synthetic_defects import draw_defects
from model.training.workers import copy_from_first

MIN_PHOTOS = 4
"""Fewest photos of a category: two for the Gaussian, two for the pairs."""
_GATE_PHOTOS = 128  # at most so many give the statistics of gate inputs
_GAUSSIAN_PHOTOS = 512  # at most so many give the Gaussian of plain features
_CHUNK_VIEWS = 32  # views in the convolutions at once


def fit_gate_inputs(detector: AttentDifferNet, photos: Photos, *, rng: np.random.Generator) -> None:
    """Fits the standardisation of all gate inputs to plain features of up to 128 photos."""
    chosen = torch.from_numpy(rng.permutation(len(photos))[:_GATE_PHOTOS].copy())
    with collect_gate_statistics(detector.backbone.attention):
        pool_random_views(detector, photos, chosen, rng=rng, attended=True)


def train_attention(
    detector: AttentDifferNet,
    categories: Sequence[Photos],
    *,
    rng: np.random.Generator,
    tell: Callable[[str], None] = lambda remark: None,
) -> float:
    """Trains ``detector.backbone.attention`` in place, by ``detector.config.pretext``; nothing else changes.

    With several categories the steps take turns. Attention is one for all of them; each category has a Gaussian and
    gate-input statistics of its own. Half of its photos fit the Gaussian and the other half makes the pairs, so the
    Gaussian knows no photo of a pair. Afterwards the statistics of the gate inputs are those of the last category: fit
    them to the photos that the detector is for (`fit_gate_inputs`).

    Args:
        detector: on the device to train on, its gates the identity; in evaluation mode.
        categories: flawless photos, at least MIN_PHOTOS of each category.
        rng: decides views, pairs and defects.
        tell: called with a remark before every step.

    Returns:
        The last step's loss; not finite where training had to stop because of that.
    """
    settings = detector.config.pretext
    subjects = [prepare_category(detector, photos, rng=rng) for photos in categories]
    adam = torch.optim.Adam(
        detector.backbone.attention.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    for step in range(settings.steps):
        tell(f"learning attention: step {step + 1}/{settings.steps}")
        subject = subjects[step % len(subjects)]
        load_gate_statistics(detector.backbone.attention, subject.statistics)
        loss = compute_pretext_loss(detector, *draw_pairs(detector, subject, rng=rng), gaussian=subject.gaussian)
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        if not torch.isfinite(loss):
            break
    return float(loss.detach())


def pretrain_attention(detector: AttentDifferNet, categories: Sequence[Photos]) -> dict[str, Tensor]:
    """Trains attention on its pretext, with flawless photos of several categories: one attention for a whole fleet.

    Args:
        detector: untrained, on the device to train on; its attention is changed.
        categories: each category's photos, at least 4.

    Returns:
        State of ``detector.backbone.attention``, copies on the CPU.

    Raises:
        DivergenceError: the pretext's loss is not finite, reported as epoch 0.
        ValueError: too few photos.
    """
    detector.eval()
    _learn_pretext(detector, [tile_photos(photos, detector.config) for photos in categories])
    return {name: value.detach().cpu().clone() for name, value in detector.backbone.attention.state_dict().items()}


def _learn_pretext(
    detector: AttentDifferNet, categories: Sequence[Photos], *, tell: Callable[[str], None] = lambda remark: None
) -> float:
    fewest = min(len(photos) for photos in categories)
    if fewest < MIN_PHOTOS:
        raise ValueError(f"the attention pretext needs at least {MIN_PHOTOS} flawless photos, got {fewest}")
    loss = train_attention(detector, categories, rng=create_stream(detector.config.seed, Stream.ATTENTION), tell=tell)
    if not math.isfinite(loss):
        raise DivergenceError(0, loss, learning_rate=detector.config.pretext.learning_rate)
    return loss


def prepare_attention(
    detector: AttentDifferNet,
    photos: Photos,
    learnt: Mapping[str, Tensor] | None,
    *,
    tell: Callable[[str], None] = lambda remark: None,
) -> float | None:
    """Makes a detector's attention ready before its flow is trained, as ``attention_training`` asks for.

    Every worker learns the whole pretext, which is short, and then takes the first one's attention: one worker and
    several get the same.

    Args:
        detector: untrained, its attention is changed.
        photos: flawless photos that the detector is for.
        learnt: what `pretrain_attention` gave; None learns the pretext from ``photos``.
        tell: called with a remark before every step of the pretext.

    Returns:
        The pretext's last loss; None where there was nothing to learn here.

    Raises:
        DivergenceError: the pretext's loss is not finite, reported as epoch 0.
        ValueError: too few photos.
    """
    kind, loss = detector.config.attention_training, None
    if kind == "frozen":
        return None
    photos = tile_photos(photos, detector.config)
    if kind == "pretext" and learnt is None:
        loss = _learn_pretext(detector, [photos], tell=tell)
    if kind == "pretext" and learnt is not None:
        detector.backbone.attention.load_state_dict(learnt, strict=True)
    fit_gate_inputs(detector, photos, rng=create_stream(detector.config.seed, Stream.GATES))
    copy_from_first(detector.backbone.attention)
    return loss


@dataclass(frozen=True)
class PretextCategory:
    """One category of the pretext.

    Attributes:
        photos: flawless ones.
        for_pairs: indices (M,) of those that make pairs.
        gaussian: whitens pooled features as the other photos' plain features ask for.
        statistics: of the gate inputs.
    """

    photos: Photos
    for_pairs: Tensor
    gaussian: Scaling
    statistics: Statistics


def prepare_category(detector: AttentDifferNet, photos: Photos, *, rng: np.random.Generator) -> PretextCategory:
    """Fits the gate inputs to the photos and the Gaussian to a random half of them; the other half makes pairs."""
    fit_gate_inputs(detector, photos, rng=rng)
    for_gaussian, for_pairs = split_halves(photos, rng=rng)
    plain = pool_random_views(detector, photos, for_gaussian[:_GAUSSIAN_PHOTOS], rng=rng, attended=False)
    return PretextCategory(
        photos, for_pairs, fit_scaling("whiten", plain), copy_gate_statistics(detector.backbone.attention)
    )


def split_halves(photos: Photos, *, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Splits photos at random into two halves of indices; no group is in both.

    Groups are taken in random order until they have half of the photos. Where that would leave a side with fewer than
    two, as for one large group, the photos are split one by one: a category that trains must have its pretext.
    """
    order, half = rng.permutation(len(photos)), len(photos) // 2
    if photos.groups is not None:
        by_group = number_groups(photos.groups[order].tolist())
        order = order[np.argsort(by_group, kind="stable")]
        ends = np.cumsum(np.bincount(by_group))
        whole = ends[(ends >= 2) & (ends <= len(photos) - 2)]
        half = int(whole[np.abs(whole - half).argmin()]) if len(whole) else half
    return torch.from_numpy(order[:half].copy()), torch.from_numpy(order[half:].copy())


def compute_pretext_loss(
    detector: AttentDifferNet, flawless: Tensor, defective: Tensor, *, gaussian: Scaling
) -> Tensor:
    """Returns the loss that this module's docstring gives, a scalar, of pairs of views uint8 (B, 3, S, S)."""
    settings = detector.config.pretext
    with record_gates(detector.backbone.attention) as gates:
        quiet = measure_deviation(detector.pool_features(flawless), gaussian)
    loud = measure_deviation(detector.pool_features(defective), gaussian)
    ranking = F.softplus(-settings.sharpness * (loud - quiet)).mean()
    return ranking + settings.identity_weight * measure_gate_deviation(gates) / detector.config.scales


def measure_deviation(pooled: Tensor, gaussian: Scaling) -> Tensor:
    """Measures q, the log of the mean squared whitened feature, (N,)."""
    return gaussian.apply(pooled).square().mean(1).log()


def draw_pairs(
    detector: AttentDifferNet, subject: PretextCategory, *, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draws flawless views and the same with defects, each uint8 (B, 3, S, S); a pair shares its rotation."""
    settings = detector.config.pretext
    chosen = subject.for_pairs[torch.from_numpy(rng.integers(0, len(subject.for_pairs), settings.pairs))]
    flawless = subject.photos.take(chosen).cpu()
    donors = flawless.roll(1, 0)
    defective = torch.stack(
        [
            draw_defects(photo, donor=donor, rng=rng, defects=settings.defects, area=settings.area)
            for photo, donor in zip(flawless, donors, strict=True)
        ]
    )
    angles, padding = _draw_angles(detector, len(chosen), rng=rng), detector.config.rotation_padding
    return rotate(flawless, angles, padding=padding), rotate(defective, angles, padding=padding)


@torch.no_grad()
def pool_random_views(
    detector: AttentDifferNet, photos: Photos, chosen: Tensor, *, rng: np.random.Generator, attended: bool
) -> Tensor:
    """Pools features (B, D) of one random view of each chosen photo."""
    chunks = []
    for some in torch.split(chosen, _CHUNK_VIEWS):
        views = rotate(
            photos.take(some), _draw_angles(detector, len(some), rng=rng), padding=detector.config.rotation_padding
        )
        chunks.append(detector.pool_features(views, attended=attended))
    return torch.cat(chunks)


def _draw_angles(detector: AttentDifferNet, count: int, *, rng: np.random.Generator) -> Tensor:
    """Draws random angles as training does."""
    if detector.config.train_angles == "uniform":
        return torch.from_numpy(rng.uniform(0, 360, count))
    return torch.from_numpy(rng.choice(list_scoring_angles(detector.config.views), count))
