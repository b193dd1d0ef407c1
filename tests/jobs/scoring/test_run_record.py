"""What a run record says, and what a log collector and Prometheus get of a run."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cluster.run_log import JsonLines, RunLog
from jobs.cluster.tally import Tally
from jobs.cluster.telemetry import MEASURES, LocalTelemetry
from jobs.scoring.publication.tally import RunTally
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.tables.schema import SCORES, Status

_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["cap", "bolt", None]),
        st.sampled_from([status.value for status in Status]),
        st.sampled_from([None, "corrupt: a: b", "truncated: the end", "lost"]),
        st.sampled_from([None, True, False]),
    ),
    max_size=40,
)


def _batches(rows: list[tuple[object, ...]]) -> list[pa.RecordBatch]:
    names = ("category", "status", "error", "is_anomaly")
    values = [dict(zip(names, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist([{**dict.fromkeys(SCORES.names), **row} for row in values], schema=SCORES)
    return table.to_batches(max_chunksize=7)


@given(_ROWS)
def test_a_tally_counts_each_row_once_whatever_the_batches(rows: list[tuple[object, ...]]) -> None:
    tally = RunTally()
    batches = _batches(rows)
    assert list(tally.watch(batches)) == batches
    assert tally.counts == Counter(row[1] for row in rows)
    assert tally.errors == Counter(str(row[2]).split(":")[0] for row in rows if row[2] is not None)
    assert tally.anomalies == sum(row[3] is True for row in rows)
    for category in {row[0] for row in rows}:
        mine = [row for row in rows if row[0] == category]
        found = +tally.by_category[str(category or "")]
        assert found == +Counter({**Counter(row[1] for row in mine), "anomalies": sum(row[3] is True for row in mine)})


def test_measures_are_summed_and_unknown_to_no_counter() -> None:
    tally, local = Tally(), LocalTelemetry()
    for values in ({"fetched_bytes": 3.0}, {"fetched_bytes": 4.0, "decode_s": 0.5}):
        tally.measure(values)
        local.add_measures(values)
    assert tally.read().measures == local.reported.measures == {"fetched_bytes": 7, "decode_s": 0.5}
    assert set(local.reported.measures) <= set(MEASURES)


@pytest.mark.parametrize(
    ("reports", "rate"),
    [
        ([("a", 0)], None),
        ([("a", 0), ("b", 3), ("a", 10), ("b", 13), ("a", 20), ("b", 23)], 2 * 6.4),
        # b dies and c takes its place: two at a time all the while
        ([("a", 0), ("b", 3), ("a", 10), ("b", 13), ("c", 17), ("a", 20), ("c", 27), ("a", 30)], 2 * 6.4),
        ([("a", 0), ("a", 10), ("b", 10), ("b", 20)], 6.4),  # one after the other
    ],
)
def test_a_steady_rate_is_that_of_full_strength_without_start_and_end(
    reports: list[tuple[str, float]], rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally, clock = Tally(), iter([at for _, at in reports])
    monkeypatch.setattr("jobs.cluster.progress.time.time", lambda: 1e9 + next(clock))
    for reporter, _ in reports:
        tally.add({"scored": 60, "unreadable": 4}, "", reporter)
    assert tally.read().units == 64 * len(reports)
    assert tally.read().steady_per_s == (None if rate is None else pytest.approx(rate))


def test_an_event_is_one_json_object_with_its_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="attentdiffernet"):
        RunLog("night-1").event("prepared", {"listed": 3, "uri": 's3://a/"odd"\nkey'})
    line = JsonLines().format(caplog.records[0])
    assert "\n" not in line
    event = json.loads(line)
    assert (event["event"], event["run_id"], event["listed"]) == ("prepared", "night-1", 3)
    assert event["uri"] == 's3://a/"odd"\nkey'


@pytest.mark.slow
def test_a_run_that_stops_says_so_in_the_json_log_and_in_one_line(tmp_path: Path) -> None:
    argv = ["--archive", str(tmp_path / "none"), "--detectors", str(tmp_path), "--results", str(tmp_path)]
    argv += ["--run-id", "night-1", "--log-format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.score", *argv], capture_output=True, text=True, check=False, timeout=120
    )
    *lines, last = done.stderr.splitlines()
    assert last.startswith("error: no photo in file://")
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["run_started", "run_stopped"]
    assert {event["run_id"] for event in events} == {"night-1"}


def test_a_record_tells_of_a_run_what_a_report_needs(cluster: str, detectors: str, drawn: Path, tmp_path: Path) -> None:
    from jobs.scoring import run as scoring
    from jobs.scoring.config import ScoreConfig

    request = {"archive": str(drawn / "archive"), "detectors": detectors, "results": str(tmp_path), "run_id": "r"}
    config = ScoreConfig.model_validate({**request, "max_error_rate": 1.0, "scoring": {"actors": 1}})
    assert scoring.score_archive(config) == 0
    record = read_record(RunFolder(f"file://{tmp_path}", "r"))
    assert record is not None
    assert record["by_category"] == {"insulator": {"scored": 36, "unreadable": 5, "anomalies": record["anomalies"]}}
    assert sum(record["errors"].values()) == 5
    assert record["measures"].keys() == MEASURES.keys() - {"detector_evictions"}
    assert record["measures"]["detector_loads"] == 1
    archived = sum(path.stat().st_size for path in (drawn / "archive").rglob("*.*"))
    assert record["measures"]["fetched_bytes"] == archived
    assert record["started_at"] < record["first_scored_at"] < record["published_at"]
