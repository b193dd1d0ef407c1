"""Scores batches of decoded photos, whatever categories they hold, with the detectors of a plan."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from jobs.cluster.progress import format_duration
from jobs.cluster.run_log import RunLog
from jobs.cluster.telemetry import Telemetry, Workload
from jobs.decoding.fetch import stack_images
from jobs.detectors.cache import DetectorCache, LoadedDetector
from jobs.errors import StorageError
from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.scoring.staged_rows import assemble_staged
from jobs.tables.schema import NOT_FINITE, Status, format_reason
from model.artifact.files import ArtifactError
from model.localization.places import Place, find_places
from model.process import keep_freed_memory, prepare_process

PART_VECTORS = 256
"""Views of a part of a batch on a GPU: a whole number of passes of the backbone, and one of the flow."""
MIN_ESTIMATED_BATCHES = 4
"""Batches of a process below which no time is taken for an estimate."""


@dataclass
class _Outcomes:
    """What became of the rows of one batch, so far.

    Attributes:
        statuses: None while a row has none yet.
        errors: reasons.
        scores: NaN where there is none.
        places: None where there is none.
    """

    statuses: list[str | None]
    errors: list[str | None]
    scores: npt.NDArray[np.float64]
    places: list[Place | None]


class BatchScorer:
    """What a scoring actor does; arguments as those of `jobs.scoring.stage.ScoreImages`."""

    def __init__(self, *, plan: ScoringPlan, cache_bytes: int, telemetry: Telemetry, device: str) -> None:
        """Loads the first category's detector."""
        prepare_process()
        keep_freed_memory()
        self._plan, self._telemetry, self._device = plan, telemetry, device
        self._detectors = DetectorCache(
            plan.detectors,
            limit_bytes=cache_bytes,
            device=device,
            measure=telemetry.add_measures,
            log=RunLog(plan.run_id),
        )
        with suppress(ArtifactError, StorageError):  # its rows will say so
            self._load_detector(min(plan.by_category))

    def announce_time(self, workload: Workload) -> None:
        """Times a batch of black photos and says how long the run will take; a run of few batches is soon done anyway.

        The first category's detector stands for all.
        """
        photos = workload.photos / workload.processes
        if photos < MIN_ESTIMATED_BATCHES * workload.batch_photos or not self._telemetry.wants_estimate():
            return
        category = min(self._plan.by_category)
        planned = self._plan.by_category[category]
        shape = planned.rules.tiles.measure_photo(planned.image_size)
        images = np.zeros((workload.batch_photos, 3, *shape), np.uint8)
        with suppress(ArtifactError, StorageError):  # its rows will say so
            detector = self._load_detector(category)
            began = time.perf_counter()
            self._score_parts(detector, [images])
            photo_s = (time.perf_counter() - began) / workload.batch_photos
            self._telemetry.announce(
                f"scoring {workload.photos} photos takes about {format_duration(photo_s * photos)}: {photo_s:.2g} s a "
                f"photo in each of {workload.processes} processes, if storage and decoding keep up"
            )

    def score_batch(self, rows: pa.Table) -> pa.Table:
        """Returns STAGED rows of DECODED ones, in order; those of one category go through their detector together."""
        categories = rows["category"].to_pylist()
        outcomes = _Outcomes(
            statuses=rows["status"].to_pylist(),
            errors=rows["error"].to_pylist(),
            scores=np.full(len(rows), np.nan),
            places=[None] * len(rows),
        )
        began = time.perf_counter()
        is_decoded = np.array([status is None for status in outcomes.statuses], bool)
        for category in sorted({name for name, ready in zip(categories, is_decoded, strict=True) if ready}):
            mine = np.flatnonzero(is_decoded & np.array([name == category for name in categories]))
            self._score_category(category, rows["pixels"], mine, outcomes)
        self._telemetry.add_measures({"score_s": time.perf_counter() - began})
        self._telemetry.add_rows(Counter(str(status) for status in outcomes.statuses))
        return assemble_staged(
            rows,
            plan=self._plan,
            statuses=[str(status) for status in outcomes.statuses],
            errors=outcomes.errors,
            scores=outcomes.scores,
            places=outcomes.places,
        )

    def _score_category(
        self, category: str, pixels: pa.ChunkedArray, mine: npt.NDArray[np.int64], outcomes: _Outcomes
    ) -> None:
        """Gives the rows ``mine``, decoded photos of one category, their outcome."""
        planned = self._plan.by_category[category]
        error: str | None
        try:
            detector = self._load_detector(category)
        except (ArtifactError, StorageError) as problem:  # costs this category's rows, which the next run tries again
            error = format_reason("detector", str(problem))
        else:
            parts = np.split(mine, range(self._part_photos(planned), len(mine), self._part_photos(planned)))
            outcomes.scores[mine], places = self._score_parts(
                detector,
                (
                    stack_images(pixels, size=planned.image_size, rows=part.tolist(), tiles=planned.rules.tiles)
                    for part in parts
                ),
            )
            for number, place in zip(mine, places, strict=True):
                outcomes.places[number] = place
            error = NOT_FINITE
        for number in mine:
            is_scored = bool(np.isfinite(outcomes.scores[number]))
            outcomes.statuses[number] = Status.SCORED if is_scored else Status.FAILED
            outcomes.errors[number] = None if is_scored else error

    def _load_detector(self, category: str) -> LoadedDetector:
        planned = self._plan.by_category[category]
        return self._detectors.get(category, detector_id=planned.detector_id, precision=planned.precision)

    def _part_photos(self, planned: PlannedDetector) -> int:
        """Returns the photos that are moved and scored together: on a CPU all, on a GPU those of a pass."""
        return sys.maxsize if self._device == "cpu" else max(1, PART_VECTORS // planned.vectors)

    def _score_parts(
        self, detector: LoadedDetector, parts: Iterable[npt.NDArray[np.uint8]]
    ) -> tuple[npt.NDArray[np.float64], Sequence[Place | None]]:
        """Scores photos part by part and finds where they deviate.

        On a GPU a part is computed while the host stacks and copies the next one. That holds as long as
        nobody reads a result, for a GPU's work is only started here.
        """
        started = [detector.scorer.inspect(self._move(torch.from_numpy(part))) for part in parts]
        scores: npt.NDArray[np.float64] = torch.cat([score for score, _ in started]).cpu().numpy()
        maps = [deviations for _, deviations in started if deviations is not None]
        return scores, find_places(torch.cat(maps).cpu().numpy()) if maps else [None] * len(scores)

    def _move(self, pixels: Tensor) -> Tensor:
        """Moves photos to the device, from pinned memory, so that the copy need not wait for the networks."""
        return pixels if self._device == "cpu" else pixels.pin_memory().to(self._device, non_blocking=True)
