"""STAGED rows: what a scoring run keeps of an object, put together from its listing, its outcome and its detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.storage import uris
from jobs.tables.schema import SCHEMA_VERSION, STAGED, Status
from model.localization.places import Place
from model.statistics.tail_rank import compute_tail_ranks

SCORED_COLUMNS = ("p_value", "tail_rank", "is_anomaly")
"""What a calibration makes of a raw score, see `rate_scores`."""
DETECTOR_COLUMNS = (
    "detector_id",
    "detector_variant",
    "weights_id",
    "views",
    "precision",
    "threshold",
    "false_alarm_rate",
    "confidence",
    "calibration_photos",
    "smallest_p_value",
)
"""What a row says of its detector, see `describe_detector`."""


def assemble_staged(
    rows: pa.Table,
    *,
    plan: ScoringPlan,
    statuses: Sequence[str],
    errors: Sequence[str | None],
    scores: npt.NDArray[np.float64],
    places: Sequence[Place | None] | None = None,
) -> pa.Table:
    """Puts MANIFEST columns, outcomes and detector facts together as STAGED rows.

    Args:
        rows: table with the MANIFEST columns, N rows; of other columns those that STAGED has are kept.
        plan: the run's; it has the detector of each row's category.
        statuses: final status of each row.
        errors: reason of each row that has no score.
        scores: (N,) raw scores, only read where the status is scored.
        places: where each photo deviates; None where its detector does not say.
    """
    planned = [plan.by_category.get(category or "") for category in rows["category"].to_pylist()]
    known = {id(detector): detector for detector in planned if detector}
    facts = {key: describe_detector(detector) for key, detector in known.items()}
    is_scored = np.array([status == Status.SCORED for status in statuses], bool)
    values: dict[str, Iterable[Any]] = {
        **{name: [facts[id(one)][name] if one else None for one in planned] for name in DETECTOR_COLUMNS},
        **rate_planned(planned, is_scored, scores),
        "score": [float(score) if kept else None for score, kept in zip(scores, is_scored, strict=True)],
        **describe_places(places or [None] * len(rows)),
        "status": statuses,
        "error": errors,
        "image_key": [make_key(uri, plan.root) for uri in rows["image_uri"].to_pylist()],
        "run_id": [plan.run_id] * len(rows),
        "scored_at": [datetime.now(UTC)] * len(rows),
        "schema_version": [SCHEMA_VERSION] * len(rows),
    }
    columns = [
        pa.array(values[field.name], field.type) if field.name in values else take_column(rows, field)
        for field in STAGED
    ]
    return pa.Table.from_arrays(columns, schema=STAGED)


def describe_detector(detector: PlannedDetector) -> dict[str, Any]:
    """Returns the DETECTOR_COLUMNS of all rows of a detector."""
    return {
        "detector_id": detector.detector_id,
        "detector_variant": detector.variant,
        "weights_id": detector.weights_id,
        "views": detector.views,
        "precision": detector.precision,
        "threshold": detector.threshold,
        "false_alarm_rate": detector.false_alarm_rate,
        "confidence": detector.confidence,
        "calibration_photos": len(detector.calibration.scores),
        "smallest_p_value": detector.calibration.min_rate,
    }


def describe_places(places: Sequence[Place | None]) -> dict[str, list[Any]]:
    """Returns the columns of the place, N values each; None where there is none."""
    return {
        "peak_x": [place and place.x for place in places],
        "peak_y": [place and place.y for place in places],
        "peak_box": [place and ",".join(f"{share:.4g}" for share in place.box) for place in places],
        "peak_share": [place and place.share for place in places],
    }


def rate_scores(detector: PlannedDetector, scores: npt.NDArray[np.float64]) -> dict[str, list[Any]]:
    """Returns the SCORED_COLUMNS of (N,) raw scores of one detector, N values each; is_anomaly may be all None."""
    ranks = compute_tail_ranks(scores, calibration=detector.calibration, tail=detector.tail)
    return {
        "p_value": detector.calibration.compute_p_values(scores).tolist(),
        "tail_rank": ranks.tolist(),
        "is_anomaly": [None] * len(scores) if detector.threshold is None else (scores > detector.threshold).tolist(),
    }


def rate_planned(
    planned: Sequence[PlannedDetector | None], is_scored: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> dict[str, list[Any]]:
    """Returns the SCORED_COLUMNS of N rows of several detectors; None where a row is not scored.

    Args:
        planned: N, whose row each is.
        is_scored: (N,).
        scores: (N,) raw scores.
    """
    found: dict[str, list[Any]] = {name: [None] * len(planned) for name in SCORED_COLUMNS}
    places: dict[int, list[int]] = {}
    for number in np.flatnonzero(is_scored).tolist():
        places.setdefault(id(planned[number]), []).append(number)
    for mine in places.values():
        detector = planned[mine[0]]
        if detector is not None:
            for name, values in rate_scores(detector, scores[mine]).items():
                for number, value in zip(mine, values, strict=True):
                    found[name][number] = value
    return found


def make_key(uri: str, root: str | None) -> str:
    """Returns a photo's key below the archive ``root``; below its bucket where there is none, as for lists."""
    if root is not None and uri.startswith(f"{root}/"):
        return uri[len(root) + 1 :]
    return uris.split(uri)[2]


def take_column(rows: pa.Table, field: pa.Field) -> pa.Array:
    """Returns the column ``field`` of a table; nulls where it has none."""
    if field.name not in rows.column_names:
        return pa.nulls(len(rows), field.type)
    return rows[field.name].combine_chunks().cast(field.type)
