"""What the Ray tasks of a comparison do: decode photos, learn attention, train and test one unit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from jobs.archive.mvtec import FLAWLESS, select_split
from jobs.decoding.fetch import stack_images
from jobs.decoding.photos import COMPARED_PX, decode_rows, fingerprint_photos
from jobs.errors import JobError, one_line
from jobs.evaluation.comparison_features import read_or_compute_features
from jobs.evaluation.comparison_units import ComparisonUnit
from jobs.tables.schema import MANIFEST
from jobs.training.groups import GroupRequest, group_as_asked
from model.baselines import score_baseline
from model.config import DEFAULT_RULES, DetectorConfig, PixelRules
from model.detector import build_detector
from model.inference.detector import build_scorer
from model.network.seeding import Stream, create_stream
from model.pictures.rules import WHOLE
from model.process import forget_peak_memory, prepare_process, read_peak_memory
from model.statistics.groups import draw_one_of_each
from model.training.attention_pretext import pretrain_attention
from model.training.loop import train
from model.training.photos import InMemory, split_calibration
from model.versions import read_versions


@dataclass(frozen=True)
class ComparisonPhotos:
    """Photos of one category, decoded to one size.

    Attributes:
        train: (N, 3, H, W) uint8, flawless; squares without tiles.
        test: (M, 3, H, W) uint8.
        test_uris: their M URIs.
        lost: URI -> why it could not be decoded, of train and test photos.
        calibration: (C, 3, H, W) uint8, flawless, that train nothing.
    """

    train: npt.NDArray[np.uint8]
    test: npt.NDArray[np.uint8]
    test_uris: Sequence[str]
    lost: Mapping[str, str]
    calibration: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3, 0, 0), np.uint8))


def decode_category(
    manifest: pa.Table,
    size: int,
    max_pixels: int,
    rules: PixelRules = DEFAULT_RULES,
    calibration_fraction: float = 0.0,
    group_by: Sequence[str] = (),
    key_pattern: str | None = None,
) -> ComparisonPhotos:
    """Fetches and decodes the photos of one category by the stage that scoring has: a Ray task.

    Args:
        manifest: LABELLED rows of the splits train and test.
        size: side S in pixels.
        max_pixels: largest photo decoded.
        rules: how photos become pixels.
        calibration_fraction: share of the flawless photos that trains nothing, the same for every seed; in [0, 1).
        group_by: what flawless photos of one group have in common, see `jobs.training.groups.GroupRequest`.
        key_pattern: of their keys, for group_by.

    Raises:
        JobError: the flawless photos are of one group, or group_by names groups, and no photo has one.
    """
    readable, lost = decode_rows(manifest, size=size, max_pixels=max_pixels, rules=rules)
    train_rows, test_rows = select_split(readable, "train"), select_split(readable, "test")
    flawless = stack_images(train_rows["pixels"], size=size, tiles=rules.tiles)
    kept, held_out = np.arange(len(flawless)), np.arange(0)
    if calibration_fraction:
        groups = group_flawless(
            train_rows, max_pixels=max_pixels, rules=rules, group_by=group_by, key_pattern=key_pattern
        )
        try:
            kept, held_out = split_calibration(len(flawless), fraction=calibration_fraction, seed=0, groups=groups)
        except ValueError as error:
            raise JobError(f"{error}; --group-by photo takes each photo by itself") from None
        held_out = held_out[draw_one_of_each(groups[held_out], rng=create_stream(0, Stream.CALIBRATION, 1))]
    return ComparisonPhotos(
        train=flawless[kept],
        calibration=flawless[held_out],
        test=stack_images(test_rows["pixels"], size=size, tiles=rules.tiles),
        test_uris=test_rows["image_uri"].to_pylist(),
        lost=lost,
    )


def group_flawless(
    rows: pa.Table, *, max_pixels: int, rules: PixelRules, group_by: Sequence[str], key_pattern: str | None
) -> npt.NDArray[np.int64]:
    """Groups readable flawless photos, (N,); at one size, so that detectors of every size have the same groups."""
    mark = f"/train/{FLAWLESS}/"
    first = rows["image_uri"][0].as_py()
    asked = GroupRequest(rows["category"][0].as_py(), first[: first.index(mark)] + mark[:-1], group_by, key_pattern)
    manifest, rules = rows.select(MANIFEST.names), rules._replace(tiles=WHOLE)
    return group_as_asked(asked, fingerprint_photos(manifest, size=COMPARED_PX, max_pixels=max_pixels, rules=rules))


def learn_attention(
    config: DetectorConfig, weights: Mapping[str, Tensor] | None, *categories: ComparisonPhotos
) -> dict[str, Tensor]:
    """Returns attention that has learnt its pretext from the flawless photos of all categories: a Ray task.

    Args:
        config: of one of the detectors that will have it.
        weights: the backbone's, by name; None for random ones.
        categories: their photos, in one order.

    Raises:
        JobError: it cannot be trained; one line.
    """
    prepare_process()
    try:
        detector = build_detector(config, weights)
        return pretrain_attention(detector, [InMemory(torch.tensor(photos.train)) for photos in categories])
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None


def train_and_test(
    unit: ComparisonUnit,
    photos: ComparisonPhotos,
    weights: Mapping[str, Tensor] | None,
    attention: Mapping[str, Tensor] | None,
    features_uri: str | None = None,
) -> dict[str, Any]:
    """Trains and tests one unit: a Ray task.

    Args:
        unit: what to do.
        photos: of the unit's category.
        weights: the backbone's, by name; None for random ones.
        attention: what `learn_attention` gave; None learns a pretext, if any, from ``photos``.
        features_uri: where features are kept; None computes them for this unit alone, and scores in the arithmetic of
            scoring.

    Returns:
        The outcome as JSON: what the unit is, ``scores`` and ``lost`` by test URI, scores of the photos that
        calibrate under ``calibration``, ``history`` of the epochs, and its ``cost``: seconds to train and to score all
        test photos, weights that are trained or fitted, and the most memory that the process held.

    Raises:
        JobError: the unit cannot be trained or scored; one line.
    """
    prepare_process()
    started_s = time.monotonic()
    forget_peak_memory()
    try:
        history, every_score, cost = _train_and_score(unit, photos, weights, attention, features_uri)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None
    if not np.isfinite(every_score).all():
        raise JobError(f"{int((~np.isfinite(every_score)).sum())} of {len(every_score)} scores are not finite")
    scores, calibration = np.split(every_score, [len(photos.test)])
    return {
        "category": unit.category,
        "variant": unit.variant,
        "seed": unit.seed,
        "scores": dict(zip(photos.test_uris, scores.tolist(), strict=True)),
        "calibration": calibration.tolist(),
        "lost": dict(photos.lost),
        "history": history,
        "seconds": time.monotonic() - started_s,
        "cost": {**cost, "peak_memory_bytes": read_peak_memory()},
        "versions": read_versions(),
    }


def _train_and_score(
    unit: ComparisonUnit,
    photos: ComparisonPhotos,
    weights: Mapping[str, Tensor] | None,
    attention: Mapping[str, Tensor] | None,
    features_uri: str | None,
) -> tuple[list[dict[str, Any]], npt.NDArray[np.float64], dict[str, Any]]:
    """Returns the epochs as JSON, none for a baseline, the scores of test and calibration photos, and what it cost.

    A baseline fits while it scores: its seconds are all counted as scoring.
    """
    scored = np.concatenate([photos.test, photos.calibration]) if len(photos.calibration) else photos.test
    train_images, test_images = torch.tensor(photos.train), torch.tensor(scored)
    began_s = time.monotonic()
    if unit.optimizer is None:
        scores = score_baseline(
            unit.variant, unit.detector, weights=weights, train=train_images, test=test_images, seed=unit.seed or 0
        )
        return [], scores, describe_cost(train_s=0.0, score_s=time.monotonic() - began_s, parameters=0)
    detector = build_detector(unit.detector, weights)
    features = None
    if features_uri is not None:
        features = read_or_compute_features(features_uri, detector, {"train": train_images, "test": test_images})
    epochs = train(
        detector,
        InMemory(train_images),
        optimizer=unit.optimizer,
        on_epoch=lambda metrics, snapshot: None,
        attention=attention,
        features=None if features is None else features["train"],
    )
    trained_s = time.monotonic()
    if features is not None:
        scores = detector.score_pooled(features["test"]).numpy()
    else:
        scores = build_scorer(detector).score(test_images).numpy()
    cost = describe_cost(
        train_s=trained_s - began_s,
        score_s=time.monotonic() - trained_s,
        parameters=sum(weight.numel() for weight in detector.parameters() if weight.requires_grad),
    )
    return [epoch.to_json() for epoch in epochs], scores, cost


def describe_cost(*, train_s: float, score_s: float, parameters: int) -> dict[str, Any]:
    """Returns what a unit cost as JSON."""
    return {"train_s": train_s, "score_s": score_s, "parameters": parameters}
