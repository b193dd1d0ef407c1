"""A filter on any column of the table finds the rows that all rows have, in DuckDB and in Arrow."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from jobs.results.adoption import adopt_table
from jobs.results.delta import ROWS, open_or_create_table
from jobs.results.maintenance import optimize_table
from tests.jobs.results.score_rows import (
    DAY,
    commit_rows,
    create_with_day_folders,
    make_batches,
    night,
    score_row,
)

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
NIGHTS: list[list[dict[str, object]]] = [
    [
        score_row("a", image_bytes=7, width=3, captured_at=NOON, tail_rank=0.4, calibration_photos=99, confidence=0.9),
        score_row("b", is_anomaly=True, box="1,2,3,4", peak_x=0.5, peak_box="0,0,1,1", site=None),
        score_row("c", status="failed", error="detector: damaged", score=None, p_value=None, is_anomaly=None),
    ],
    [score_row("d", status="deleted", image_etag=None, detector_id=None, weights_id=None, p_value=None)],
    [score_row("e", category="long " * 2000, site="\u00e9\u2028", error="x" * 6000)],
]


@pytest.fixture(params=["as written", "compacted", "with day folders", "joined", "of before", "adopted"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> DeltaTable:
    """Rows with and without a value in nearly every column, in several files."""
    results = f"file://{tmp_path}"
    if request.param == "adopted":
        write_earlier_table(tmp_path)
        adopt_table(results)
        return DeltaTable(str(tmp_path / "scores"))
    if request.param in ("with day folders", "joined"):
        create_with_day_folders(results)
    for number, rows in enumerate(NIGHTS):
        commit_rows(results, rows, run_id=f"n{number}", day=night(number // 2), known_since=number)
    if request.param in ("compacted", "joined"):
        optimize_table(results, join_days=request.param == "joined")
    if request.param == "of before":
        forget_properties(tmp_path)
        open_or_create_table(results)
    return DeltaTable(str(tmp_path / "scores"))


def write_earlier_table(folder: Path) -> None:
    """Files without a log that a run record names; one lacks the newer columns."""
    place = folder / "scores" / f"run_date={DAY}"
    place.mkdir(parents=True)
    names = []
    for number, rows in enumerate(NIGHTS):
        found = pa.Table.from_batches(make_batches(rows))
        names.append(f"scores/run_date={DAY}/{number}.parquet")
        pq.write_table(found.drop(["tail_rank", "weights_id"]) if number else found, folder / names[-1])
    (folder / "runs").mkdir()
    (folder / "runs" / "n.json").write_text(json.dumps({"files": names}))


def forget_properties(folder: Path) -> None:
    """Makes the table one of a version that named no columns for its statistics."""
    first = folder / "scores" / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in first.read_text().splitlines()]
    for action in actions:
        if "metaData" in action:
            del action["metaData"]["configuration"]["delta.dataSkippingStatsColumns"]
    first.write_text("\n".join(map(json.dumps, actions)))


@pytest.mark.parametrize("column", ROWS.names)
def test_a_filter_finds_what_all_rows_have(table: DeltaTable, column: str) -> None:
    dataset = table.to_pyarrow_dataset()
    values = table.to_pyarrow_table().column(column).to_pylist()
    assert len(values) == 5
    field, database = pc.field(column), duckdb.connect()
    database.register("scores", dataset)

    def count(condition: str, *given: Any) -> int:
        ((found,),) = database.execute(f"SELECT count(*) FROM scores WHERE {condition}", given).fetchall()
        return int(found)

    nulls = values.count(None)
    assert (count(f"{column} IS NULL"), dataset.count_rows(filter=field.is_null())) == (nulls, nulls)
    assert count(f"{column} IS NOT NULL") == len(values) - nulls
    for value in {value for value in values if value is not None}:
        same = values.count(value)
        expected = pa.scalar(value, ROWS.field(column).type)
        assert (count(f"{column} = ?", value), dataset.count_rows(filter=field == expected)) == (same, same)
        assert count(f"{column} <= ? AND {column} >= ?", value, value) == same
