"""Rows of the result table for tests: complete, and as short to write as what the test is about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from deltalake import DeltaTable

from jobs.results.access import make_location, make_storage_options
from jobs.results.commit import Committed, commit_slice
from jobs.results.delta import locate_table, make_properties, make_schema
from jobs.results.known import NO_TABLE, read_rows
from jobs.tables.schema import SCHEMA_VERSION, SCORES, Status

DAY = date(2026, 3, 9)


def create_with_day_folders(results: str) -> None:
    """An empty table as earlier versions made it: a folder for each day, which alone says the day of its rows."""
    DeltaTable.create(
        make_location(locate_table(results)),
        schema=make_schema(),
        partition_by=["run_date"],
        configuration=make_properties(has_day_folders=True),
        storage_options=make_storage_options(locate_table(results)),
    )


def score_row(uri: str, *, run_id: str = "night-1", day: date = DAY, **changes: object) -> dict[str, object]:
    """A scored row, an hour after midnight of its day."""
    row: dict[str, object] = {
        "image_uri": uri,
        "image_etag": f"etag of {uri}",
        "category": "cap",
        "site": "north",
        "status": Status.SCORED.value,
        "score": 1.0,
        "p_value": 0.5,
        "threshold": 20.0,
        "is_anomaly": False,
        "detector_id": "d1",
        "weights_id": "w1",
        "false_alarm_rate": 0.05,
        "run_id": run_id,
        "scored_at": datetime(day.year, day.month, day.day, 1, tzinfo=UTC),
        "schema_version": SCHEMA_VERSION,
        "attempt": 1,
    }
    assert row.keys() | changes.keys() <= set(SCORES.names)
    return row | changes


def make_batches(rows: Iterable[dict[str, object]]) -> list[pa.RecordBatch]:
    """SCORES record batches of rows."""
    return pa.Table.from_pylist([dict.fromkeys(SCORES.names) | row for row in rows], schema=SCORES).to_batches()


def commit_rows(
    results: str,
    rows: Iterable[dict[str, object]],
    *,
    run_id: str = "night-1",
    slice_number: int = 0,
    day: date = DAY,
    known_since: int = NO_TABLE,
) -> Committed:
    """Commits rows as one slice of a run."""
    return commit_slice(
        results,
        make_batches(rows),
        run_id=run_id,
        slice_number=slice_number,
        run_date=day,
        known_since=known_since,
    )


def list_photos(results: str) -> list[str]:
    """The photos of all rows of the table, sorted."""
    return sorted(read_rows(results, ["image_uri"])["image_uri"].to_pylist())


def night(number: int) -> date:
    """The day of a later night."""
    return DAY + timedelta(days=number)
