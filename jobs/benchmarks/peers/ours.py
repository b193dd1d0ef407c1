"""Our side of the benchmark against peers: detectors that our own code trains, scoring a folder in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from jobs.benchmarks.peers.config import PeersBenchmarkConfig
from jobs.benchmarks.peers.measurement import LabelledFolder, Score, UnfittedError, hash_folder
from jobs.config import merge
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import RequestError, one_line
from jobs.evaluation.comparison_config import ComparisonConfig
from model.config import DetectorConfig
from model.detector import AttentDifferNet, build_detector
from model.image import ImageError, decode_image
from model.inference.detector import build_scorer
from model.training.attention_pretext import pretrain_attention
from model.training.collapse_guard import CollapseError
from model.training.loop import Snapshot, train
from model.training.metrics import DivergenceError, EpochMetrics
from model.training.photos import InMemory


def read_comparison(config: PeersBenchmarkConfig) -> ComparisonConfig:
    """Reads the settings of our detectors: from a comparison's YAML with this benchmark's data and weights.

    Raises:
        RequestError: the file is not there or does not fit.
    """
    try:
        given = yaml.safe_load(Path(config.settings).read_text())
        own = {"data": config.data or ["drawn"], "output": "unused", "detector": {"weights": config.weights}}
        merged = merge(given, {**own, "variants": config.variants})
        comparison = ComparisonConfig.model_validate(merged)
        if config.weights == "imagenet" and comparison.detector.backbone == "alexnet_caffe":  # which has no download
            comparison = ComparisonConfig.model_validate(merge(merged, {"detector": {"backbone": "alexnet"}}))
        return comparison
    except (OSError, yaml.YAMLError, ValidationError, ValueError) as error:
        raise RequestError(f"--settings {config.settings}: {one_line(error)}") from error


class OurDetector:
    """One of our variants, with the settings of a comparison; see `jobs.benchmarks.peers.measurement.Contestant`."""

    side: Literal["ours"] = "ours"

    def __init__(
        self, variant: str, comparison: ComparisonConfig, *, training: Sequence[Path], batch_photos: int
    ) -> None:
        """Trains nothing yet.

        Args:
            variant: get_preset, or a name of the comparison's.
            comparison: settings of all variants.
            training: folders of flawless photos of all categories, which attention learns from where it says so.
            batch_photos: photos scored at once.
        """
        config = comparison.make_detector_config(variant, seed=0)
        self.name = variant
        self.about: dict[str, Any] = {
            "backbone": config.backbone,
            "weights": config.weights.rsplit("/", 1)[-1],
            "image_size": config.image_size,
            "views": config.views,
            "precision": config.precision,
        }
        learnt_from = [hash_folder(folder) for folder in training] if comparison.pretext_on == "all" else []
        self.identity = f"{config.model_dump_json()} {comparison.optimizer.model_dump_json()} {learnt_from}"
        self.has_auroc = config.weights != "random"
        self._comparison, self._training, self._batch_photos = comparison, training, batch_photos
        self._weights = load_backbone_weights(config, asked_as="--weights")

    def fit(self, photos: LabelledFolder, *, seed: int) -> Score:
        """Trains it; the last epoch is kept. Where its speed alone counts, a step is enough.

        Raises:
            UnfittedError: training went astray, and says how.
            RequestError: a photo cannot be decoded.
        """
        try:
            return self._train_detector(photos, seed=seed)
        except (DivergenceError, CollapseError, ValueError) as error:
            raise UnfittedError(one_line(error)) from error

    def _train_detector(self, photos: LabelledFolder, *, seed: int) -> Score:
        config, optimizer = self._comparison.make_detector_config(self.name, seed=seed), self._comparison.optimizer
        images = read_images(photos.train, size=config.image_size)
        if not self.has_auroc:
            config = config.model_copy(update={"pretext": config.pretext.model_copy(update={"steps": 1})})
            optimizer = optimizer.model_copy(update={"epochs": 1})
            images = images[: optimizer.batch_size]
        detector = build_detector(config, self._weights)
        train(
            detector,
            InMemory(images),
            optimizer=optimizer,
            on_epoch=ignore_epoch,
            attention=self._learn_attention(config),
        )
        return make_score(detector.eval(), batch_photos=self._batch_photos)

    def _learn_attention(self, config: DetectorConfig) -> Mapping[str, Tensor] | None:
        """Returns attention that learnt from all categories, or None where it learns from one."""
        if (
            not self.has_auroc
            or self._comparison.pretext_on != "all"
            or config.attention_training != "pretext"
            or not config.attention
        ):
            return None
        sources = [InMemory(read_images(folder, size=config.image_size)) for folder in self._training]
        return pretrain_attention(build_detector(config, self._weights), sources)


def ignore_epoch(_metrics: EpochMetrics, _snapshot: Snapshot) -> None:
    """Takes the report of an epoch and does nothing."""


def read_images(folder: Path, *, size: int) -> Tensor:
    """Reads the photos of a folder, in the order of their names: uint8 (N, 3, size, size).

    Raises:
        RequestError: one cannot be decoded.
    """
    return decode_files(sorted(folder.iterdir()), size=size)


def decode_files(files: Sequence[Path], *, size: int) -> Tensor:
    """Decodes files to uint8 (N, 3, size, size). Raises RequestError for an unreadable one."""
    images = []
    for file in files:
        try:
            images.append(decode_image(file.read_bytes(), size=size))
        except ImageError as error:
            raise RequestError(f"{file.name}: {error}: a benchmark needs readable photos") from error
    return torch.stack(images)


def make_score(detector: AttentDifferNet, *, batch_photos: int) -> Score:
    """Returns what decodes and scores a folder batch by batch, in one process, as `Engine.predict` does."""
    size = detector.config.image_size
    scorer = build_scorer(detector)

    def score(folder: Path) -> npt.NDArray[np.float64]:
        files = sorted(folder.iterdir())
        batches = [files[start : start + batch_photos] for start in range(0, len(files), batch_photos)]
        return np.concatenate([scorer.score(decode_files(batch, size=size)).numpy() for batch in batches])

    return score
