"""The photos of a search, decoded once for each image size and shared by all trials through Ray's object store."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from jobs.archive.mvtec import FLAWLESS
from jobs.decoding.fetch import stack_images
from jobs.decoding.photos import decode_rows
from jobs.detectors.lineage import hash_training_photos
from jobs.errors import JobError
from model.config import DEFAULT_RULES, PixelRules
from model.network.seeding import Stream, create_stream
from model.process import prepare_process
from model.statistics.groups import draw_one_of_each
from model.training.photos import split_calibration
from model.training.synthetic_defects import draw_defects

_SYNTHETIC_SEED = 0


@dataclass(frozen=True)
class SearchPhotos:
    """Decoded photos of one category at one image size.

    Attributes:
        train: (N, 3, H, W) uint8, flawless, that train; squares without tiles.
        held_out: (M, 3, H, W) uint8, flawless, that do not, and that trials are judged by.
        labelled: (K, 3, H, W) uint8, validation photos; of the final test where this is its room.
        labels: (K,) True is defective.
        labelled_uris: their K URIs.
        lost: URI -> why it could not be decoded.
        trained_on: short hashes of the photos that train or judge, see
            `jobs.detectors.lineage.hash_training_photos`: none of them may calibrate.
        calibration: (C, 3, H, W) uint8, flawless, that neither train nor judge.
    """

    train: npt.NDArray[np.uint8]
    held_out: npt.NDArray[np.uint8]
    labelled: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.bool_]
    labelled_uris: list[str]
    lost: Mapping[str, str]
    trained_on: list[str] | None
    calibration: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3, 0, 0), np.uint8))


@dataclass(frozen=True)
class FlawlessSplit:
    """Ascending indices of flawless photos, disjoint; no group has photos in two of them.

    Together they are all but for those of calibration groups that were not drawn: each gives one photo.

    Who is chosen by photos looks better on them than on others. So those that judge trials cannot calibrate what is
    chosen: the scores of the best of 64 are too low on them, and its false alarms too many.
    """

    train: npt.NDArray[np.int64]
    judge: npt.NDArray[np.int64]
    calibrate: npt.NDArray[np.int64]


def split_flawless(count: int, *, fraction: float, groups: npt.NDArray[np.int64] | None = None) -> FlawlessSplit:
    """Splits flawless photos into those that train, those that judge trials, and those that no judgement sees.

    Args:
        count: at least 3.
        fraction: share that calibrates, and share of the others that judges; in (0, 1).
        groups: (count,) the group of each photo; None: each by itself.

    Raises:
        ValueError: too few groups.
    """
    groups = np.arange(count) if groups is None else groups
    rest, held_out = split_calibration(count, fraction=fraction, seed=0, groups=groups)
    calibrate = held_out[draw_one_of_each(groups[held_out], rng=create_stream(0, Stream.CALIBRATION, 1))]
    train, judge = split_calibration(len(rest), fraction=fraction, seed=0, groups=groups[rest])
    return FlawlessSplit(rest[train], rest[judge], calibrate)


def decode_search_photos(
    train: pa.Table,
    labelled: pa.Table,
    size: int,
    max_pixels: int,
    fraction: float,
    rules: PixelRules = DEFAULT_RULES,
    groups: npt.NDArray[np.int64] | None = None,
) -> SearchPhotos:
    """Fetches and decodes photos in a Ray task, by the same stage as training and scoring.

    Args:
        train: MANIFEST rows of flawless photos.
        labelled: LABELLED rows, maybe none.
        size: side S in pixels.
        max_pixels: largest photo decoded.
        fraction: see `split_flawless`, of the readable flawless photos.
        rules: how photos become pixels.
        groups: (N,) the group of each of the N rows of ``train``; None: each by itself.

    Raises:
        JobError: fewer than 4 flawless photos can be read, or they are of fewer than 3 groups.
    """
    prepare_process()
    flawless, lost = decode_rows(train, size=size, max_pixels=max_pixels, rules=rules)
    judged, lost_too = decode_rows(labelled, size=size, max_pixels=max_pixels, rules=rules)
    images = stack_images(flawless["pixels"], size=size, tiles=rules.tiles)
    if len(images) < 4:
        raise JobError(f"needed at least 4 readable flawless photos, got {len(images)} of {len(train)}")
    is_readable = pc.is_in(train["image_uri"], flawless["image_uri"].combine_chunks()).to_numpy(zero_copy_only=False)
    groups = np.arange(len(train)) if groups is None else groups
    try:
        parts = split_flawless(len(images), fraction=fraction, groups=groups[is_readable])
    except ValueError as error:
        raise JobError(f"{error}; --group-by photo takes each photo by itself") from error
    return SearchPhotos(
        train=images[parts.train],
        held_out=images[parts.judge],
        labelled=stack_images(judged["pixels"], size=size, tiles=rules.tiles),
        labels=np.array([label != FLAWLESS for label in judged["label"].to_pylist()], dtype=bool),
        labelled_uris=judged["image_uri"].to_pylist(),
        lost={**lost, **lost_too},
        trained_on=hash_training_photos(flawless.take(pa.array(np.concatenate([parts.train, parts.judge])))),
        calibration=images[parts.calibrate],
    )


def to_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    """Wraps photos in a tensor without a copy: they lie in shared memory and are only read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that nobody may write to it, and nobody does
        return torch.from_numpy(images)


def shift_photos(images: Tensor) -> Tensor:
    """Moves photos (N, 3, H, W) by a sixteenth of their sides, mirrored at the edge, and darkens them a little.

    Another view of the same asset, which a good score hardly notices.
    """
    height, width = images.shape[-2:]
    down, right = max(1, height // 16), max(1, width // 16)
    padded = torch.nn.functional.pad(images.float(), (right, 0, down, 0), mode="reflect")[..., :height, :width]
    return padded.mul(0.95).round().to(torch.uint8)


def add_synthetic_defects(images: Tensor) -> Tensor:
    """Adds one synthetic defect to each of the photos (N, 3, H, W), the same ones every time.

    `model.training.synthetic_defects` draws them, into a random square of a photo that is none, as those of some tiles.
    """
    rng = np.random.default_rng([_SYNTHETIC_SEED, images.shape[-1]])
    donors, found = images.roll(1, 0), images.clone()
    side = min(images.shape[-2:])
    for photo, donor in zip(found, donors, strict=True):
        rows, columns = (draw_stretch(whole, side, rng) for whole in photo.shape[-2:])
        photo[:, rows, columns] = draw_defects(
            photo[:, rows, columns], donor=donor[:, rows, columns], rng=rng, defects=1, area=(0.002, 0.06)
        )
    return found


def draw_stretch(whole: int, part: int, rng: np.random.Generator) -> slice:
    """Draws a stretch of ``part`` pixels out of a side of ``whole``; nothing is drawn where that is all of it."""
    first = int(rng.integers(whole - part + 1)) if whole > part else 0
    return slice(first, first + part)
