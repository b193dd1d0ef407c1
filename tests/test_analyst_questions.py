"""The analyst's SQL on a small result table: exact answers, and unpublished runs do not count."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.tables.schema import SCORES
from tests.support.pages import blocks
from tests.support.places import ROOT

QUESTIONS = ROOT / "infra" / "analyst" / "questions.sql"
TONIGHT = date(2026, 3, 9)
LAST_WEEK = TONIGHT - timedelta(days=9)
"""Runs are late at times: the night to compare with is not seven days back to the day."""


def scored(uri: str, *, p_value: float, run_id: str = "tonight", **changes: object) -> dict[str, object]:
    """A scored row, one hour after midnight of its run."""
    midnight = datetime(TONIGHT.year, TONIGHT.month, TONIGHT.day, tzinfo=UTC)
    row = {
        "image_uri": uri,
        "category": "insulator",
        "site": "north",
        "status": "scored",
        "p_value": p_value,
        "score": 1 / p_value,
        "threshold": 20.0,
        "is_anomaly": p_value <= 0.05,
        "detector_id": "d0" if run_id == "lastweek" else "d1",
        "run_id": run_id,
        "scored_at": midnight - timedelta(days={"tonight": 0, "again": 0, "dead": 0, "lastweek": 9}[run_id], hours=-1),
        "schema_version": 1,
    }
    return row | changes


def unscored(uri: str, error: str, *, status: str = "unreadable") -> dict[str, object]:
    """A row of tonight without a score."""
    empty = dict.fromkeys(("p_value", "score", "threshold", "is_anomaly"))
    return scored(uri, p_value=1.0, status=status, error=error) | empty


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[Any, ...]]]:
    """The rows that each question gives on two published runs and one that died before its record was written."""
    results = tmp_path_factory.mktemp("results")
    publish(results, "lastweek", [scored(f"a{i}", p_value=p, run_id="lastweek") for i, p in enumerate((0.5, 0.6, 0.7))])
    publish(
        results,
        "tonight",
        [
            scored("a0", p_value=0.02),  # scored last week at 0.5: question 3 counts only this
            scored("b1", p_value=0.3),
            scored("b2", p_value=0.01, score=30.0),
            scored("b3", p_value=0.01, score=50.0),
            scored("b4", p_value=0.9, site=None),
            unscored("x1", "truncated: ends after 40 of 90 kB"),
            unscored("x2", "truncated: ends after 1 of 2 kB"),
            unscored("x3", "empty: 0 bytes"),
            unscored("x4", "no_detector: none for tower", status="no_detector"),
        ],
    )
    publish(results, "again", [scored("b1", p_value=0.3, run_id="again")])  # the same night, scored again
    publish(results, "dead", [scored("b1", p_value=0.001, run_id="dead")])
    leftover = results / "scores" / f"run_date={TONIGHT}" / "tonight-00001.parquet"  # of a publication done again
    leftover.write_bytes((results / "scores" / f"run_date={TONIGHT}" / "dead-00000.parquet").read_bytes())
    (results / "runs" / "dead.json").unlink()
    connection = duckdb.connect()
    connection.execute(f"SET VARIABLE results = '{results}'")
    found = []
    for statement in connection.extract_statements(QUESTIONS.read_text()):
        relation = connection.execute(statement)
        if statement.type == duckdb.StatementType.SELECT:
            found.append(relation.fetchall())
    return found


def publish(results: Path, run_id: str, rows: list[dict[str, object]]) -> None:
    """Writes rows and record as jobs.scoring.publish does."""
    run_date = LAST_WEEK if run_id == "lastweek" else TONIGHT
    folder = results / "scores" / f"run_date={run_date.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    complete = [{name: row.get(name) for name in SCORES.names} for row in rows]
    file = folder / f"{run_id}-00000.parquet"
    pq.write_table(pa.Table.from_pylist(complete, schema=SCORES), file)
    record = {"run_id": run_id, "published_at": f"{run_date}T02:00:00+00:00", "files": [str(file.relative_to(results))]}
    (results / "runs").mkdir(exist_ok=True)
    (results / "runs" / f"{run_id}.json").write_text(json.dumps(record, indent=2))


def test_each_question_has_one_answer_table(answers: list[list[tuple[Any, ...]]]) -> None:
    assert len(answers) == 4


def test_tonights_photos_are_ranked_per_site_by_p_value_then_by_score(answers: list[list[tuple[Any, ...]]]) -> None:
    ranked = [(site, place, p_value, uri) for site, place, p_value, *_, uri in answers[0]]
    assert ranked == [
        ("(no site)", 1, 0.9, "b4"),
        ("north", 1, 0.01, "b3"),
        ("north", 2, 0.01, "b2"),
        ("north", 3, 0.02, "a0"),
        ("north", 4, 0.3, "b1"),
    ]


def test_drift_compares_each_night_with_one_a_week_before_and_names_a_change_of_the_detector(
    answers: list[list[tuple[Any, ...]]],
) -> None:
    assert answers[1] == [
        ("insulator", LAST_WEEK, 3, "d0", None, None, 0.0, None, 0.6, None),
        ("insulator", TONIGHT, 5, "d1", True, LAST_WEEK, 0.6, 0.6, 0.02, -0.58),
    ]


def test_what_could_not_be_scored_is_counted_by_reason(answers: list[list[tuple[Any, ...]]]) -> None:
    assert answers[2] == [
        (TONIGHT, "unreadable", "truncated", 2, "x1"),
        (TONIGHT, "unreadable", "empty", 1, "x3"),
        (TONIGHT, "no_detector", "no_detector", 1, "x4"),
    ]


def test_another_budget_counts_each_photo_once_by_its_newest_p_value(answers: list[list[tuple[Any, ...]]]) -> None:
    assert answers[3] == [
        ("insulator", 0.01, 7, 2, 0.1, 0.01),
        ("insulator", 0.05, 7, 3, 0.4, 0.01),
        ("insulator", 0.1, 7, 3, 0.7, 0.01),
    ]


def test_the_page_s_python_prints_every_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path / "results", "tonight", [scored("a1", p_value=0.1)])
    shutil.copytree(QUESTIONS.parent, tmp_path / "infra" / "analyst")
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in blocks(ROOT / "infra" / "docs" / "analysts.md", "python") if "questions.sql" in block]
    exec(compile(code, "analysts.md", "exec"), {})
    said = capsys.readouterr().out
    assert [name for name in ("place", "detector_changed", "example", "false_alarm_rate") if name not in said] == []
