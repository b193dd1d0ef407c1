"""The units of a training: every combination of category, variant and seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.cluster.tally import Report
from jobs.detectors import registry
from jobs.detectors.lineage import hash_json, hash_manifest
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.training.config import TrainConfig
from jobs.training.photos import BlockPhotos
from model.config import PixelRules
from model.network.seeding import Stream, create_stream
from model.statistics.groups import draw_one_of_each
from model.training.photos import split_calibration
from model.versions import read_program_version

_OUTCOME_FIELDS = (
    "detector",
    "optimizer",
    "calibration_fraction",
    "validation_fraction",
    "split_seed",
    "group_by",
    "key_pattern",
    "max_pixels",
)
"""Fields that decide what comes out of a training; the others decide where and how it runs."""


def locate_work(detectors: str) -> str:
    """Returns the folder of a registry that has the work folders of all its units."""
    return uris.join(detectors, ".train")


@dataclass(frozen=True)
class TrainingUnit:
    """One detector to train.

    Attributes:
        config: the request for this detector alone.
        manifest: MANIFEST rows of the category's flawless photos, ``image_id`` the row number.
        weights_hash: names the bytes of the backbone's weights.
    """

    config: TrainConfig
    manifest: pa.Table
    weights_hash: str = ""

    def __str__(self) -> str:
        """Names the unit in messages."""
        return f"{self.config.category} {self.config.variant} seed {self.config.detector.seed}"

    @property
    def alias(self) -> str:
        """Returns the alias that the trained detector gets: it tells which detectors of a fleet are there already."""
        return f"{self.config.variant}.seed{self.config.detector.seed}"

    @cached_property
    def key(self) -> str:
        """Returns 16 hex digits of all that decides the outcome: configuration, photos, weights, this program."""
        config = self.config.model_dump(mode="json")
        decisive = [
            {name: config[name] for name in _OUTCOME_FIELDS},
            self.manifest_hash,
            self.weights_hash,
            read_program_version(),
        ]
        return hash_json(decisive)

    @cached_property
    def manifest_hash(self) -> str:
        """Returns what names the photos, 64 hex digits."""
        return hash_manifest(self.manifest)

    @property
    def work_folder(self) -> str:
        """Returns where checkpoints are kept until the detector is registered: the same for the same request."""
        name = f"{self.config.category}.{self.config.variant}.{self.key}"
        return uris.join(locate_work(self.config.detectors), name)

    @property
    def photos_key(self) -> tuple[str, int, PixelRules]:
        """Units with the same category, side in pixels, black and white share decoded photos."""
        return self.config.category, self.config.detector.image_size, self.config.detector.pixel_rules

    @property
    def weights_key(self) -> tuple[str, str]:
        """Units with the same backbone and weights share them."""
        return self.config.detector.backbone, self.config.detector.weights


@dataclass(frozen=True)
class Splits:
    """Ascending photo indices, disjoint, of three parts that no group has photos in two of.

    Together they are all photos of a unit but for those of the calibration groups that were not drawn.
    """

    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.int64]


def split_photos(count: int, *, config: TrainConfig, groups: npt.NDArray[np.int64] | None = None) -> Splits:
    """Decides which photos train, which decide when to stop, and which calibrate and have no part in either.

    The same for all variants and seeds of a request, so that seeds are compared on photos that none was trained on.
    Each group that calibrates gives one photo, drawn at random, see `model.statistics.groups`.

    Args:
        count: number of readable photos, at least 2.
        config: fractions and split_seed of the unit.
        groups: (count,) the group of each photo; None: each by itself.

    Raises:
        ValueError: fewer groups than parts.
    """
    seed, groups = config.split_seed, np.arange(count) if groups is None else groups
    rest, held_out = split_calibration(count, fraction=config.calibration_fraction, seed=seed, groups=groups)
    calibration = held_out[draw_one_of_each(groups[held_out], rng=create_stream(seed, Stream.CALIBRATION, 1))]
    share = config.validation_share / (1 - config.calibration_fraction)
    if share == 0:
        return Splits(rest, rest[:0], calibration)
    training, validation = split_calibration(len(rest), fraction=share, seed=seed, groups=groups[rest])
    return Splits(rest[training], rest[validation], calibration)


def find_trained(unit: TrainingUnit) -> tuple[str, dict[str, Any]] | None:
    """Returns id and metrics of the detector that this very unit came to earlier; None where there is none."""
    config = unit.config
    detector_id = registry.read_aliases(config.detectors, config.category).get(unit.alias)
    if detector_id is None:
        return None
    try:
        metrics = registry.read_metrics(config.detectors, config.category, detector_id=detector_id)
    except RequestError:
        return None  # the alias outlived its detector: train it again
    return (detector_id, metrics) if metrics.get("training_key") == unit.key else None


@dataclass(frozen=True)
class TrainingTask:
    """What the workers of one unit get.

    Attributes:
        config: the unit's TrainConfig, as JSON.
        name: of the unit, for progress.
        training: photos that train.
        validation: photos that decide when to stop, maybe none.
        calibration: photos that calibrate.
        weights: reference to the backbone's weights by name, or to None.
        workers_per_node: training workers, of all units, that share a node.
        metrics: what the detector's metrics.json says of its origin.
        report: shows epochs as they pass.
        every_photo: all of them, to look for the least likely; None looks for none.
    """

    config: dict[str, Any]
    name: str
    training: BlockPhotos
    validation: BlockPhotos
    calibration: BlockPhotos
    weights: Any
    workers_per_node: int
    metrics: dict[str, Any]
    report: Report
    every_photo: BlockPhotos | None = None
