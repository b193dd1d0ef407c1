"""STAGED rows: what a scoring run keeps of an object, put together from its listing, its outcome and its detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.scoring.plan import PlannedDetector
from jobs.tables.schema import SCHEMA_VERSION, STAGED, Status


def assemble_staged(
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
    p_values = compute_p_values(planned, statuses, scores)
    is_scored = [status == Status.SCORED for status in statuses]
    thresholds = [detector.threshold if detector else None for detector in planned]
    values: dict[str, Iterable[Any]] = {
        "score": mask_values(scores, is_scored),
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
    columns = [
        pa.array(values[field.name], field.type) if field.name in values else take_column(rows, field)
        for field in STAGED
    ]
    return pa.Table.from_arrays(columns, schema=STAGED)


def take_column(rows: pa.Table, field: pa.Field) -> pa.Array:
    """Returns the column ``field`` of a table; nulls where it has none."""
    if field.name not in rows.column_names:
        return pa.nulls(len(rows), field.type)
    return rows[field.name].combine_chunks().cast(field.type)


def mask_values(values: np.ndarray, keep: Sequence[bool]) -> list[float | None]:
    """Returns values as floats, and None where ``keep`` says no."""
    return [float(value) if kept else None for value, kept in zip(values, keep, strict=True)]


def compute_p_values(
    planned: Sequence[PlannedDetector | None], statuses: Sequence[str], scores: np.ndarray
) -> list[float | None]:
    """Returns the p-value of each row that is scored, under its detector's calibration, and None for the others."""
    found: list[float | None] = [None] * len(scores)
    rows_by_detector: dict[str, list[int]] = {}
    for number, (detector, status) in enumerate(zip(planned, statuses, strict=True)):
        if detector is not None and status == Status.SCORED:
            rows_by_detector.setdefault(detector.detector_id, []).append(number)
    for numbers in rows_by_detector.values():
        detector = planned[numbers[0]]
        if detector is not None:
            for number, p_value in zip(numbers, detector.calibration.compute_p_values(scores[numbers]), strict=True):
                found[number] = float(p_value)
    return found
