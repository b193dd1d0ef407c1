"""Trains many units on one cluster: as many at a time as it has room for, with photos decoded once."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from jobs.cluster.datasets import count_scoring_actors
from jobs.cluster.tally import Report
from jobs.cluster.task_pool import run_units
from jobs.config import ScoringResources
from jobs.errors import JobError
from jobs.tables.text import make_printable
from jobs.training.config import TrainConfig
from jobs.training.groups import group_photos, looks_for_near_duplicates
from jobs.training.photos import DecodedPhotos, decode_photos, sample_photos
from jobs.training.planning import MIN_PHOTOS
from jobs.training.trainer import train_unit
from jobs.training.units import TrainingUnit
from model.config import PixelRules
from model.pictures.contrast import warn_of_low_contrast


@dataclass(frozen=True)
class UnitResult:
    """What became of one unit.

    Attributes:
        unit: which.
        status: ``trained``, ``already trained`` (by an earlier run of the same request) or ``failed``.
        detector_id: None where it failed.
        metrics: the detector's, empty where it failed.
        seconds: wall time, 0 where nothing was done.
        reason: why it failed, one line.
    """

    unit: TrainingUnit
    status: str
    detector_id: str | None
    metrics: Mapping[str, Any]
    seconds: float
    reason: str | None


def count_concurrent_units(config: TrainConfig) -> int:
    """Returns how many units to train at a time.

    As many as asked; else as many as the GPUs, or the cores that do not decode, can give workers.
    """
    if config.concurrent is not None:
        return config.concurrent
    return max(1, count_scoring_actors(ScoringResources(use_gpu=config.use_gpu)) // config.workers)


def count_workers_per_node(workers: int) -> int:
    """Counts the training workers that share a node when so many work at a time, spread evenly."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # ray ships no types
    alive = [node for node in nodes if node["Alive"]]
    return math.ceil(workers / max(1, len(alive)))


def train_units(
    units: Sequence[TrainingUnit], *, concurrent: int, weights: Mapping[tuple[str, str], Any], report: Report
) -> Iterator[UnitResult]:
    """Trains units, a few at a time; yields each result when it is there.

    Each unit's driver is a thread: it only waits for Ray Train's controller, which is a process of its own. (A Ray task
    for each, as Tune does, would cost a process of 300 MB and five seconds of imports apiece.)

    Args:
        units: those of one category one after the other, so that few categories' photos are kept at a time.
        concurrent: units at a time.
        weights: references to backbone weights, or to None, by `TrainingUnit.weights_key`.
        report: of a running Progress.
    """
    shared = SharedPhotos(units)

    def train(unit: TrainingUnit) -> tuple[str, Mapping[str, Any]]:
        try:
            report.describe(f"decoding {len(unit.manifest)} photos of {unit.config.category}")
            decoded = shared.take(unit)
            report.describe(f"{unit}: starting its workers")
            found = train_unit(
                unit,
                decoded,
                weights=weights[unit.weights_key],
                workers_per_node=count_workers_per_node(min(concurrent, len(units)) * unit.config.workers),
                report=report,
            )
        finally:
            shared.give_back(unit)
        report.reach(str(unit), unit.config.optimizer.epochs, f"{unit}: done")  # also if it stopped early
        return found

    for outcome in run_units(units, train, at_a_time=concurrent):
        if outcome.result is None:
            yield UnitResult(outcome.unit, "failed", None, {}, outcome.seconds, outcome.reason)
        else:
            yield UnitResult(outcome.unit, "trained", *outcome.result, seconds=outcome.seconds, reason=None)


class SharedPhotos:
    """Photos that several units train on: decoded when the first asks, dropped when the last is done."""

    def __init__(self, units: Sequence[TrainingUnit]) -> None:
        """Counts the units that need each category's photos; decodes nothing yet."""
        self._left = Counter(unit.photos_key for unit in units)
        self._decoded: dict[tuple[str, int, PixelRules], DecodedPhotos] = {}
        self._locks = {key: threading.Lock() for key in self._left}

    def __len__(self) -> int:
        """Returns how many sets of photos are decoded at present."""
        return len(self._decoded)

    def take(self, unit: TrainingUnit) -> DecodedPhotos:
        """Returns the unit's photos; others that ask for the same wait meanwhile.

        Raises:
            JobError: too few are readable.
        """
        key = unit.photos_key
        with self._locks[key]:
            if key not in self._decoded:
                self._decoded[key] = decode_unit_photos(unit)
            return self._decoded[key]

    def give_back(self, unit: TrainingUnit) -> None:
        """Drops the unit's photos if no other unit needs them."""
        key = unit.photos_key
        with self._locks[key]:
            self._left[key] -= 1
            if self._left[key] == 0:
                self._decoded.pop(key, None)


def decode_unit_photos(unit: TrainingUnit) -> DecodedPhotos:
    """Decodes the photos of a unit, names those that cannot be read, and groups the others.

    Raises:
        JobError: fewer than `MIN_PHOTOS` are readable.
    """
    config = unit.config
    decoded = decode_photos(
        unit.manifest,
        size=config.detector.image_size,
        max_pixels=config.max_pixels,
        rules=config.detector.pixel_rules,
        with_thumbnails=looks_for_near_duplicates(config, photos=len(unit.manifest)),
    )
    for uri, reason in decoded.left_out:
        print(f"warning: left out {make_printable(uri)}: {make_printable(reason)}", flush=True)
    warning = warn_of_low_contrast(sample_photos(decoded.photos)) if len(decoded.photos) else None
    if warning is not None:
        print(f"warning: {unit.config.category}: {warning}", flush=True)
    if len(decoded.photos) < MIN_PHOTOS:
        raise JobError(
            f"needed at least {MIN_PHOTOS} readable flawless photos of {config.category}, got "
            f"{len(decoded.photos)} of {len(unit.manifest)}"
        )
    groups = group_photos(config, decoded.fingerprints)
    return replace(
        decoded,
        photos=replace(decoded.photos, groups=groups),
        fingerprints=decoded.fingerprints.drop_columns(["thumbnail"]),
    )
