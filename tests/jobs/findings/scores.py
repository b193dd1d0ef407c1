"""SCORES rows for tests, from the few values that matter to each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.tables.schema import SCHEMA_VERSION, SCORES, Status

WHEN = datetime(2026, 11, 2, 1, 0, tzinfo=UTC)


def make_scores(*rows: dict[str, Any]) -> pa.RecordBatch:
    """A batch of SCORES; each row is a scored photo but for the values given."""
    full = [complete_row(number, row) for number, row in enumerate(rows)]
    columns = [pa.array([row.get(field.name) for row in full], field.type) for field in SCORES]
    return pa.RecordBatch.from_arrays(columns, schema=SCORES)


def complete_row(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """A row with values for what is not given."""
    key = f"insulator/a/photo-{number:05d}.jpg"
    return {
        "image_uri": f"s3://archive/{key}",
        "image_key": key,
        "image_etag": f"{number:032x}",
        "category": "insulator",
        "status": Status.SCORED,
        "score": 1.0,
        "p_value": 0.5,
        "tail_rank": 0.5,
        "threshold": 2.0,
        "is_anomaly": False,
        "false_alarm_rate": 0.05,
        "calibration_photos": 199,
        "smallest_p_value": 0.005,
        "detector_id": "d" * 16,
        "weights_id": "e" * 16,
        "run_id": "night",
        "scored_at": WHEN,
        "fetched_at": WHEN,
        "attempt": 1,
        "schema_version": SCHEMA_VERSION,
        **row,
    }
