"""Ray Data stage ScoreImages: pixels -> STAGED rows, in actors that keep detectors loaded."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from jobs import registry
from jobs.fetch import as_images
from jobs.plan import PlannedDetector, ScoringPlan
from jobs.schema import SCHEMA_VERSION, STAGED, Status, reason
from model.artifact import load_artifact
from model.detector import AttentDifferNet
from model.process import prepare_process


class ScoreImages:
    """DECODED rows to STAGED rows, in an actor that keeps a few detectors loaded.

    Args:
        plan: the run's detectors by category.
        report: called with the number of rows by status of each batch.
        device: where detectors live, "cpu" or "cuda".
    """

    def __init__(self, *, plan: ScoringPlan, report: Callable[[Mapping[str, int]], None], device: str) -> None:
        """Loads nothing yet: a detector is loaded by its category's first photo."""
        prepare_process()
        self._plan, self._report, self._device = plan, report, device
        self._loaded: OrderedDict[str, AttentDifferNet] = OrderedDict()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Scores one batch; rows of one category go through their detector together."""
        categories = rows["category"].to_pylist()
        is_decoded = np.array([status is None for status in rows["status"].to_pylist()], bool)
        scores = np.full(len(rows), np.nan)
        for category in sorted({name for name, ready in zip(categories, is_decoded, strict=True) if ready}):
            mine = np.flatnonzero(is_decoded & np.array([name == category for name in categories]))
            scores[mine] = self._score(category, rows["pixels"].take(pa.array(mine)))
        staged = self._staged(rows, categories, scores)
        self._report(Counter(staged["status"].to_pylist()))
        return staged

    def _score(self, category: str, pixels: pa.ChunkedArray) -> np.ndarray:
        detector = self._detector(category)
        images = as_images(pixels, size=self._plan.by_category[category].image_size)
        return detector.score(torch.from_numpy(images).to(self._device)).cpu().numpy()

    def _detector(self, category: str) -> AttentDifferNet:
        detector_id = self._plan.by_category[category].detector_id
        if detector_id not in self._loaded:
            folder = registry.fetch(self._plan.detectors, category, detector_id=detector_id)
            while len(self._loaded) >= self._plan.detector_cache:
                self._loaded.popitem(last=False)
            self._loaded[detector_id] = load_artifact(folder, device=self._device).detector
        self._loaded.move_to_end(detector_id)
        return self._loaded[detector_id]

    def _staged(self, rows: pa.Table, categories: Sequence[str | None], scores: np.ndarray) -> pa.Table:
        planned = [self._plan.by_category.get(category or "") for category in categories]
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
