"""Ray Data stage ScoreImages: pixels -> STAGED rows, in actors that keep detectors loaded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from jobs.detector_cache import DetectorCache, LoadedDetector
from jobs.fetch import as_images
from jobs.plan import PlannedDetector, ScoringPlan
from jobs.run_log import RunLog, log_as_json
from jobs.schema import SCHEMA_VERSION, STAGED, Status, reason
from jobs.telemetry import Telemetry
from model.config import Precision
from model.process import keep_freed_memory, prepare_process


class ScoreImages:
    """DECODED rows to STAGED rows, in an actor that keeps some detectors loaded.

    Args:
        plan: the run's detectors by category.
        cache_bytes: memory for detectors.
        telemetry: told of rows by status, seconds and loads.
        device: where detectors live, "cpu" or "cuda".
    """

    def __init__(self, *, plan: ScoringPlan, cache_bytes: int, telemetry: Telemetry, device: str) -> None:
        """Loads the first category's detector, while the first photos are fetched; others when they are needed."""
        prepare_process()
        keep_freed_memory()
        log_as_json()
        self._plan, self._telemetry, self._device = plan, telemetry, device
        self._detectors = DetectorCache(
            plan.detectors,
            precision=plan.precision,
            limit_bytes=cache_bytes,
            device=device,
            measure=telemetry.measured,
            log=RunLog(plan.run_id),
        )
        self._loaded(min(plan.by_category))

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Scores one batch; rows of one category go through their detector together."""
        categories = rows["category"].to_pylist()
        is_decoded = np.array([status is None for status in rows["status"].to_pylist()], bool)
        scores, precisions = np.full(len(rows), np.nan), dict[str, Precision]()
        began = time.perf_counter()
        for category in sorted({name for name, ready in zip(categories, is_decoded, strict=True) if ready}):
            mine = np.flatnonzero(is_decoded & np.array([name == category for name in categories]))
            planned = self._plan.by_category[category]
            detector = self._loaded(category)
            images = as_images(rows["pixels"].take(pa.array(mine)), size=planned.image_size)
            scores[mine] = self._score(detector, images)
            precisions[category] = detector.precision
        self._telemetry.measured({"score_s": time.perf_counter() - began})
        staged = self._staged(rows, categories, scores, precisions)
        self._telemetry.rows(Counter(staged["status"].to_pylist()))
        return staged

    def _loaded(self, category: str) -> LoadedDetector:
        planned = self._plan.by_category[category]
        return self._detectors.get(category, detector_id=planned.detector_id, precision=planned.precision)

    def _score(self, detector: LoadedDetector, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images)
        if self._device != "cpu":  # pinned memory, so that the copy need not wait for the networks
            pixels = pixels.pin_memory().to(self._device, non_blocking=True)
        scores: np.ndarray = detector.scorer.score(pixels).cpu().numpy()
        return scores

    def _staged(
        self,
        rows: pa.Table,
        categories: Sequence[str | None],
        scores: np.ndarray,
        precisions: Mapping[str, Precision],
    ) -> pa.Table:
        by_category = {
            category: detector.model_copy(update={"precision": precisions.get(category, detector.precision)})
            for category, detector in self._plan.by_category.items()
            if category in categories
        }
        planned = [by_category.get(category or "") for category in categories]
        statuses, errors = rows["status"].to_pylist(), rows["error"].to_pylist()
        for number in np.flatnonzero([status is None for status in statuses]):
            finite = np.isfinite(scores[number])
            statuses[number] = Status.SCORED if finite else Status.FAILED
            errors[number] = None if finite else reason("not_finite", "the detector gave no finite score")
        return staged_rows(
            rows, run_id=self._plan.run_id, planned=planned, statuses=statuses, errors=errors, scores=scores
        )


def staged_rows(
    rows: pa.Table,
    *,
    run_id: str,
    planned: Sequence[PlannedDetector | None],
    statuses: Sequence[str],
    errors: Sequence[str | None],
    scores: np.ndarray,
) -> pa.Table:
    """Puts MANIFEST columns, outcomes and detector facts together as STAGED rows.

    Args:
        rows: table with the MANIFEST columns, N rows.
        run_id: the run.
        planned: detector of each row's category, or None.
        statuses: final status of each row.
        errors: reason of each row that has no score.
        scores: (N,) raw scores, only read where the status is scored.
    """
    p_values = _p_values(planned, statuses, scores)
    is_scored = [status == Status.SCORED for status in statuses]
    thresholds = [detector.threshold if detector else None for detector in planned]
    values: dict[str, Iterable[Any]] = {
        "score": _masked(scores, is_scored),
        "p_value": p_values,
        "threshold": thresholds,
        "is_anomaly": [
            bool(score > limit) if ok and limit is not None else None
            for score, limit, ok in zip(scores, thresholds, is_scored, strict=True)
        ],
        "status": statuses,
        "error": errors,
        "detector_id": [detector.detector_id if detector else None for detector in planned],
        "detector_variant": [detector.variant if detector else None for detector in planned],
        "views": [detector.views if detector else None for detector in planned],
        "precision": [detector.precision if detector else None for detector in planned],
        "run_id": [run_id] * len(rows),
        "scored_at": [datetime.now(UTC)] * len(rows),
        "schema_version": [SCHEMA_VERSION] * len(rows),
    }
    listed = {"image_uri": "uri", "image_etag": "etag", "image_bytes": "size_bytes"}
    columns = [
        pa.array(values[field.name], field.type)
        if field.name in values
        else rows[listed.get(field.name, field.name)].combine_chunks().cast(field.type)
        for field in STAGED
    ]
    return pa.Table.from_arrays(columns, schema=STAGED)


def _masked(values: np.ndarray, keep: Sequence[bool]) -> list[float | None]:
    return [float(value) if kept else None for value, kept in zip(values, keep, strict=True)]


def _p_values(
    planned: Sequence[PlannedDetector | None], statuses: Sequence[str], scores: np.ndarray
) -> list[float | None]:
    found: list[float | None] = [None] * len(scores)
    rows_by_detector: dict[str, list[int]] = {}
    for number, (detector, status) in enumerate(zip(planned, statuses, strict=True)):
        if detector is not None and status == Status.SCORED:
            rows_by_detector.setdefault(detector.detector_id, []).append(number)
    for numbers in rows_by_detector.values():
        detector = planned[numbers[0]]
        if detector is not None:
            for number, p_value in zip(numbers, detector.calibration.p_values(scores[numbers]), strict=True):
                found[number] = float(p_value)
    return found
