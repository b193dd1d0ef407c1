"""The table of a fleet: one row per unit, printed, and kept as Parquet and JSON beside the detectors."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from jobs import storage
from jobs.detectors.lineage import hash_json
from jobs.storage import uris
from jobs.tables.parquet import write_parquet
from jobs.tables.schema import FLEET
from jobs.tables.text import format_table
from jobs.training.fleet import UnitResult
from jobs.training.units import TrainingUnit


def build_fleet_table(results: Sequence[UnitResult], *, order: Sequence[TrainingUnit]) -> pa.Table:
    """Returns FLEET rows of all results, in the order of the units."""
    place = {unit.alias + "\n" + unit.config.category: number for number, unit in enumerate(order)}
    ordered = sorted(results, key=lambda done: place[done.unit.alias + "\n" + done.unit.config.category])
    return pa.Table.from_pylist([_make_row(result) for result in ordered], schema=FLEET)


def _make_row(result: UnitResult) -> dict[str, object]:
    config, metrics = result.unit.config, result.metrics
    return {
        "category": config.category,
        "variant": config.variant,
        "seed": config.detector.seed,
        "status": result.status,
        "epochs": metrics.get("epochs"),
        "last_loss": metrics["loss_by_epoch"][-1] if metrics else None,
        "validation_loss": metrics.get("validation_loss"),
        "minutes": round(result.seconds / 60, 2),
        "detector_id": result.detector_id,
        "reason": result.reason,
    }


def format_fleet_table(rows: pa.Table) -> str:
    """Returns the table for a person."""
    return format_table(
        [name.replace("_", " ") for name in rows.column_names], [row.values() for row in rows.to_pylist()]
    )


def save_fleet_table(rows: pa.Table, *, detectors: str, units: Sequence[TrainingUnit]) -> str:
    """Writes the table as ``<detectors>/fleet/<name>.parquet`` and ``.json``; returns the former's URI.

    The name is that of the units, so that the same request on the same photos replaces its table.
    """
    place = uris.join(detectors, "fleet", hash_json([unit.key for unit in units]))
    write_parquet(rows, f"{place}.parquet")
    storage.write(f"{place}.json", json.dumps(rows.to_pylist(), indent=1).encode())
    return f"{place}.parquet"
