"""Many units on one cluster: so many at a time as it has room for, photos decoded once, one failure ends no other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import ray

from jobs.cluster.datasets import count_scoring_actors
from jobs.cluster.progress import Report
from jobs.cluster.session import explain_error
from jobs.config import ScoringResources
from jobs.errors import JobError
from jobs.training.config import TrainConfig
from jobs.training.photos import DecodedPhotos, decode_photos
from jobs.training.trainer import train_unit
from jobs.training.units import MIN_PHOTOS, Unit


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

    unit: Unit
    status: str
    detector_id: str | None
    metrics: Mapping[str, Any]
    seconds: float
    reason: str | None


def concurrent_units(config: TrainConfig) -> int:
    """Units at a time: as asked, else as many as the GPUs, or the cores beside those that decode, can give workers."""
    if config.concurrent is not None:
        return config.concurrent
    return max(1, count_scoring_actors(ScoringResources(use_gpu=config.use_gpu)) // config.workers)


def train_units(
    units: Sequence[Unit], *, concurrent: int, weights: Mapping[tuple[str, str], Any], report: Report
) -> Iterator[UnitResult]:
    """Trains units, a few at a time; yields each result when it is there.

    Each unit's driver is a thread: it only waits for Ray Train's controller, which is a process of its own. (A Ray task
    for each, as Tune does, would cost a process of 300 MB and five seconds of imports apiece.)

    Args:
        units: those of one category one after the other, so that few categories' photos are kept at a time.
        concurrent: units at a time.
        weights: references to backbone weights, or to None, by `Unit.weights_key`.
        report: of a running Progress.
    """
    shared = _SharedPhotos(units)

    def train(unit: Unit) -> UnitResult:
        began = time.monotonic()
        try:
            if not ray.is_initialized():  # the driver is ending, and the next call of Ray would start another cluster
                raise JobError(f"{unit}: interrupted")
            decoded = shared.take(unit)
            detector_id, metrics = train_unit(unit, decoded, weights=weights[unit.weights_key], report=report)
            report.reach(str(unit), unit.config.optimizer.epochs, f"{unit}: done")  # also if it stopped early
            return UnitResult(unit, "trained", detector_id, metrics, time.monotonic() - began, None)
        except Exception as error:  # one unit's failure, of whatever kind, must not end the others
            reason = str(error) if isinstance(error, JobError) else explain_error(error)
            return UnitResult(unit, "failed", None, {}, time.monotonic() - began, reason)
        finally:
            shared.give_back(unit)

    with ThreadPool(concurrent) as threads:
        yield from threads.imap_unordered(train, units)


class _SharedPhotos:
    """Photos that several units train on: decoded when the first asks, dropped when the last is done."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._left = Counter(unit.photos_key for unit in units)
        self._decoded: dict[tuple[str, int], DecodedPhotos] = {}
        self._locks = {key: threading.Lock() for key in self._left}

    def take(self, unit: Unit) -> DecodedPhotos:
        """The unit's photos; others that ask for the same wait meanwhile.

        Raises:
            JobError: too few are readable.
        """
        key = unit.photos_key
        with self._locks[key]:
            if key not in self._decoded:
                self._decoded[key] = _decode(unit)
            return self._decoded[key]

    def give_back(self, unit: Unit) -> None:
        """Says that the unit is done with its photos."""
        key = unit.photos_key
        with self._locks[key]:
            self._left[key] -= 1
            if self._left[key] == 0:
                self._decoded.pop(key, None)


def _decode(unit: Unit) -> DecodedPhotos:
    decoded = decode_photos(unit.manifest, size=unit.config.detector.image_size, max_pixels=unit.config.max_pixels)
    for uri, reason in decoded.left_out:
        print(f"warning: left out {uri}: {reason}", flush=True)
    if len(decoded.photos) < MIN_PHOTOS:
        raise JobError(
            f"needed at least {MIN_PHOTOS} readable flawless photos of {unit.config.category}, got "
            f"{len(decoded.photos)} of {len(unit.manifest)}"
        )
    return decoded
