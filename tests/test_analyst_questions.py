"""The analyst's SQL on a table of three nights: exact answers, each photo once, and no dialect of one engine alone."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from deltalake import DeltaTable, write_deltalake
from sqlglot import exp

from jobs.results.delta import ROWS
from jobs.results.export import export_latest
from jobs.results.known import read_latest
from jobs.results.maintenance import optimize_table
from jobs.review.matching import VerdictIndex
from jobs.tables.schema import MAPS, VERDICTS, document_columns
from model.statistics.calibration import count_ranks
from model.statistics.false_discovery import estimate_alarms
from tests.jobs.results.score_rows import DAY, commit_rows, create_with_day_folders, night, score_row
from tests.support.pages import blocks
from tests.support.places import ROOT

FOLDER = ROOT / "infra" / "analyst"
PAGE = ROOT / "infra" / "docs" / "analysts.md"
QUESTIONS = sorted((FOLDER / "questions").glob("*.sql"))
PHOTO = "s3://inspection/archive/insulator/north/2026-03-01_0001.jpg"
NAMES = {path.stem for path in QUESTIONS}


def scored(uri: str, p_value: float, *, detector: str = "d1", **changes: object) -> dict[str, object]:
    """A scored row; the detector is calibrated on 99 photos and calls an anomaly at 5 %."""
    row = score_row(
        uri,
        p_value=p_value,
        score=1 / p_value,
        tail_rank=p_value - 0.001,
        is_anomaly=p_value <= 0.05,
        detector_id=detector,
        weights_id=f"w{detector}",
        calibration_photos=99,
        smallest_p_value=0.01,
    )
    return row | changes


def unscored(uri: str, status: str, error: str | None, **changes: object) -> dict[str, object]:
    """A row without a score."""
    empty = dict.fromkeys(("p_value", "score", "threshold", "is_anomaly", "tail_rank"))
    return score_row(uri, status=status, error=error) | empty | changes


def write_nights(results: str) -> None:
    """Three nights: new photos, then a changed, a deleted and unreadable ones, then another detector."""
    first = [
        scored(PHOTO, 0.02),
        scored("changed", 0.9, image_etag="before"),
        scored("deleted", 0.01),
        scored("fine", 0.8),
        scored("south", 0.6, site="south"),
        unscored("cut", "unreadable", "truncated: ends after 40 of 90 kB"),
        unscored("later", "failed", "storage: timed out"),
    ]
    second = [
        scored("changed", 0.03, image_etag="after"),
        scored("later", 0.7, attempt=2),
        unscored("deleted", "deleted", None),
        unscored("odd", "no_detector", "no_detector: none for tower", category="tower", detector_id=None),
    ]
    third = [
        scored(PHOTO, 0.4, detector="d2"),
        scored("changed", 0.01, detector="d2", image_etag="after", tail_rank=0.0001),
        scored("fine", 0.04, detector="d2"),
        scored("south", 0.5, detector="d2", site="south"),
    ]
    for number, rows in enumerate((first, second, third)):
        day, run = night(7 * number), f"night-{number + 1}"
        at = datetime(day.year, day.month, day.day, 1, tzinfo=UTC)
        dated = [row | {"run_id": run, "scored_at": at} for row in rows]
        commit_rows(results, dated, run_id=run, day=day, known_since=number)


def write_verdicts(results: str) -> None:
    """Verdicts on four photos; one is looked at twice, one as it was before, and one by a list without entity tags."""
    rows = [
        ("changed", "after", "good", 1),
        ("changed", "after", "defect", 2),
        ("fine", None, "good", 1),
        ("south", None, "defect", 1),
        ("south", "etag of south", "unsure", 2),
        (PHOTO, "other bytes", "defect", 1),
    ]
    table = [
        {
            "image_uri": uri,
            "image_etag": etag,
            "verdict": verdict,
            "by": "ann",
            "at": datetime(2026, 4, day, tzinfo=UTC),
        }
        for uri, etag, verdict, day in rows
    ]
    write_deltalake(f"{results}/verdicts", pa.Table.from_pylist(table, schema=VERDICTS))


def write_maps(results: str) -> None:
    """Maps of a photo by both of its detectors, twice by the newer one, and of bytes that are gone."""
    rows = [
        ("changed", "after", "d1", "old", 1),
        ("changed", "after", "d2", "first", 2),
        ("changed", "after", "d2", "newest", 3),
        ("fine", "other bytes", "d2", "gone", 3),
    ]
    table = [
        {
            "image_uri": uri,
            "image_etag": etag,
            "detector_id": detector,
            "run_id": f"run-{day}",
            "overlay_uri": overlay,
            "explained_at": datetime(2026, 4, day, tzinfo=UTC),
        }
        for uri, etag, detector, overlay, day in rows
    ]
    write_deltalake(f"{results}/maps", pa.Table.from_pylist(table, schema=MAPS))


@pytest.fixture(scope="module", params=["new", "with day folders", "joined"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """DuckDB with the views over the tables of three nights and of verdicts, in each layout of the scores."""
    results = tmp_path_factory.mktemp("results")
    if request.param != "new":
        create_with_day_folders(f"file://{results}")
    write_nights(f"file://{results}")
    if request.param == "joined":
        optimize_table(f"file://{results}", join_days=True)
    write_verdicts(str(results))
    write_maps(str(results))
    return connect(results)


def connect(results: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB with the views over those tables that results have; a view of another one is left out."""
    found = duckdb.connect()
    for name in ("scores", "verdicts", "maps"):
        if (results / name).exists():
            found.register(f"{name}_table", DeltaTable(str(results / name)).to_pyarrow_dataset())
    for view in duckdb.extract_statements((FOLDER / "views.sql").read_text()):
        with suppress(duckdb.CatalogException):
            found.execute(view)
    return found


def ask(database: duckdb.DuckDBPyConnection, question: str) -> list[dict[str, Any]]:
    """The answer to a question, a mapping for each row."""
    answer = database.sql((FOLDER / "questions" / f"{question}.sql").read_text()).to_arrow_table()
    return list(answer.to_pylist())


def photos_of(rows: list[dict[str, Any]]) -> list[str]:
    """The photos of an answer that lists some."""
    return [row["image_uri"] for row in rows]


@pytest.mark.parametrize("question", sorted(NAMES - {"photo_history"}))
def test_an_answer_has_each_photo_once(database: duckdb.DuckDBPyConnection, question: str) -> None:
    rows = ask(database, question)
    listed = [(row["image_uri"], row.get("box")) for row in rows if "image_uri" in row]
    assert len(set(listed)) == len(listed)
    counted = sum(row["photos"] for row in rows if {"category", "status"} & row.keys() and "photos" in row)
    assert counted <= 4 * 8


def test_the_latest_row_of_each_photo_is_what_holds(database: duckdb.DuckDBPyConnection) -> None:
    rows = database.execute("SELECT image_uri, status, detector_id FROM latest ORDER BY image_uri").fetchall()
    assert len(rows) == 8
    assert {uri: (status, detector) for uri, status, detector in rows} == {
        PHOTO: ("scored", "d2"),
        "changed": ("scored", "d2"),
        "deleted": ("deleted", "d1"),
        "fine": ("scored", "d2"),
        "south": ("scored", "d2"),
        "cut": ("unreadable", "d1"),
        "later": ("scored", "d1"),
        "odd": ("no_detector", None),
    }


_FAILED = ("failed", "detector: damaged")
_A, _B = {"image_etag": "a"}, {"image_etag": "b"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([scored("p", 0.3), scored("p", 0.2)], 1),
        ([scored("p", 0.3), unscored("p", *_FAILED)], 0),
        ([scored("p", 0.3), scored("p", 0.2), unscored("p", *_FAILED), unscored("p", *_FAILED)], 1),
        ([scored("p", 0.3), unscored("p", "no_detector", "no_detector: cap")], 0),
        ([scored("p", 0.3), unscored("p", "unreadable", "archived: GLACIER")], 0),
        ([scored("p", 0.3), unscored("p", *_FAILED, image_etag=None)], 0),
        ([scored("p", 0.3, **_A), unscored("p", *_FAILED, **_B)], 1),
        ([scored("p", 0.3, **_A), scored("p", 0.2, **_B), unscored("p", *_FAILED, **_A)], 0),
        ([scored("p", 0.3), unscored("p", "deleted", None)], 1),
        ([scored("p", 0.3), unscored("p", "missing", "gone: 404")], 1),
        ([unscored("p", *_FAILED), unscored("p", "unreadable", "empty: no bytes")], 1),
        ([unscored("p", *_FAILED), scored("p", 0.3), unscored("p", *_FAILED), scored("p", 0.2)], 3),
        ([scored("p", 0.3, box="1,1,2,2"), unscored("p", *_FAILED, box="1,1,2,2")], 0),
    ],
)
def test_a_failed_try_hides_no_score_of_the_same_bytes(
    rows: list[dict[str, object]], expected: int, tmp_path: Path
) -> None:
    results = f"file://{tmp_path}/results"
    for number, row in enumerate(rows):
        at = datetime(2026, 3, 9, number, tzinfo=UTC)
        commit_rows(results, [row | {"scored_at": at}], slice_number=number, known_since=number)
    database = connect(tmp_path / "results")
    (found,) = database.sql("SELECT scored_at FROM latest").to_arrow_table().to_pylist()
    assert found["scored_at"].hour == expected
    assert read_latest(results, ["scored_at"]).to_pylist() == [found]
    output = f"file://{tmp_path}/latest.parquet"
    assert export_latest(results, output) == 1
    assert database.sql(f"SELECT scored_at FROM '{tmp_path}/latest.parquet'").to_arrow_table().to_pylist() == [found]


def test_a_photo_whose_last_try_failed_is_counted_whether_it_has_a_score_or_none(tmp_path: Path) -> None:
    results, failed = f"file://{tmp_path}/results", night(1)
    commit_rows(results, [scored("known", 0.3)])
    later = datetime(failed.year, failed.month, failed.day, tzinfo=UTC)
    rows = [unscored(uri, *_FAILED, scored_at=later) for uri in ("known", "new")]
    commit_rows(results, rows, run_id="night-2", day=failed, known_since=1)
    (row,) = ask(connect(tmp_path / "results"), "not_scored")
    assert (row["status"], row["reason"], row["photos"], row["scored_before"]) == ("failed", "detector", 2, 1)


def test_a_photo_whose_list_forgot_a_box_is_not_the_whole_photo(tmp_path: Path) -> None:
    results = f"file://{tmp_path}/results"
    commit_rows(results, [scored("p", 0.02), unscored("p", "unreadable", "bad_box: none", box="")])
    judged = {"image_uri": "p", "verdict": "defect", "at": datetime(2026, 4, 1, tzinfo=UTC)}
    write_deltalake(f"{tmp_path}/results/verdicts", pa.Table.from_pylist([judged], schema=VERDICTS))
    database = connect(tmp_path / "results")
    assert database.sql("SELECT box FROM latest_verdicts").fetchall() == [(None,)]
    (precision,) = ask(database, "alarm_precision")
    assert (precision["alarms"], precision["judged"]) == (1, 1)
    (left,) = ask(database, "not_scored")
    assert (left["photos"], left["scored_before"]) == (1, 0)


def test_shares_of_alarms_are_null_where_none_was_possible(tmp_path: Path) -> None:
    results, mute = f"file://{tmp_path}/results", {"threshold": None, "is_anomaly": None}
    later = datetime(2026, 3, 9, 2, tzinfo=UTC)
    rows = [scored("p", 0.02, **mute), scored("p", 0.02, detector="d2", scored_at=later)]
    commit_rows(results, rows)
    database = connect(tmp_path / "results")
    (moved,) = ask(database, "drift_after_retrain")
    assert (moved["anomaly_share_before"], moved["anomaly_share_now"]) == (None, 1)
    database.execute("CREATE OR REPLACE VIEW scores AS SELECT * FROM scores_table WHERE is_anomaly IS NULL")
    assert [row["anomaly_share"] for row in ask(database, "weekly_trend")] == [None]


def test_the_latest_state_counts_every_photo_of_the_archive(database: duckdb.DuckDBPyConnection) -> None:
    found = {
        (row["category"], row["status"]): (row["photos"], row["anomalies"]) for row in ask(database, "latest_state")
    }
    assert found == {
        ("cap", "deleted"): (1, 0),
        ("cap", "scored"): (5, 2),
        ("cap", "unreadable"): (1, 0),
        ("tower", "no_detector"): (1, 0),
    }


def test_the_worst_of_each_site_are_ordered_by_tail_rank(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "worst_per_site")
    assert [(row["site"], row["place"], row["image_uri"]) for row in rows] == [
        ("north", 1, "changed"),
        ("north", 2, "fine"),
        ("north", 3, PHOTO),
        ("north", 4, "later"),
        ("south", 1, "south"),
    ]


def test_the_trend_counts_a_photo_once_a_week(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "weekly_trend")
    assert [(row["photos"], row["anomaly_share"]) for row in rows] == [(5, 0.4), (2, 0.5), (4, 0.5)]
    assert [row["mean_p_value"] for row in rows] == pytest.approx([0.466, 0.365, 0.2375])
    assert rows[0]["week"].date() == DAY if isinstance(rows[0]["week"], datetime) else rows[0]["week"] == DAY


def test_another_budget_counts_each_photo_once(database: duckdb.DuckDBPyConnection) -> None:
    rows = [
        (float(row["rate"]), row["photos"], row["alarms"], row["is_supported"])
        for row in ask(database, "other_budgets")
    ]
    assert rows == [(0.001, 5, 0, False), (0.01, 5, 1, True), (0.05, 5, 2, True), (0.1, 5, 2, True)]


def test_two_detectors_disagree_on_what_they_both_have_seen(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "disagreement")
    assert [(row["image_uri"], row["is_anomaly_of_newest"], row["newest_detector"]) for row in rows] == [
        (PHOTO, False, "d2"),
        ("fine", True, "d2"),
    ]


def test_a_photo_that_came_into_another_category_is_compared_within_it_alone(tmp_path: Path) -> None:
    names = ("cap", "cap", "pole", "pole")
    rows = [
        scored("p", 0.01 if number % 2 else 0.5, detector=f"d{number}", category=name, scored_at=_hour(number))
        for number, name in enumerate(names)
    ]
    commit_rows(f"file://{tmp_path}/results", rows)
    (row,) = ask(connect(tmp_path / "results"), "disagreement")
    assert (row["category"], row["newest_detector"], row["other_detector"]) == ("pole", "d3", "d2")


def _hour(number: int) -> datetime:
    return datetime(2026, 3, 9, number, tzinfo=UTC)


def test_what_could_not_be_scored_is_counted_by_reason(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "not_scored")
    assert sorted((row["status"], row["reason"] or "", row["photos"], row["example"]) for row in rows) == [
        ("deleted", "", 1, "deleted"),
        ("no_detector", "no_detector", 1, "odd"),
        ("unreadable", "truncated", 1, "cut"),
    ]


def test_the_history_of_a_photo_has_all_its_rows(database: duckdb.DuckDBPyConnection) -> None:
    assert [(row["run_id"], row["p_value"]) for row in ask(database, "photo_history")] == [
        ("night-1", 0.02),
        ("night-3", 0.4),
    ]


def test_a_retraining_is_compared_on_the_same_bytes(database: duckdb.DuckDBPyConnection) -> None:
    (row,) = ask(database, "drift_after_retrain")
    assert (row["detector_before"], row["detector_now"], row["photos"]) == ("d1", "d2", 4)
    assert (row["anomaly_share_before"], row["anomaly_share_now"]) == (0.5, 0.5)
    assert (row["new_alarms"], row["alarms_gone"]) == (1, 1)


def test_precision_takes_the_newest_verdict_on_the_bytes_of_today(database: duckdb.DuckDBPyConnection) -> None:
    (row,) = ask(database, "alarm_precision")
    assert (row["alarms"], row["judged"], row["defects"], float(row["alarm_precision"])) == (2, 2, 1, 0.5)
    assert math.isclose(row["precision_low"], 0.0945, abs_tol=1e-3)  # Wilson's interval of 1 in 2
    assert math.isclose(row["precision_high"], 0.9055, abs_tol=1e-3)


def test_a_verdict_is_about_the_same_photos_in_sql_as_in_the_commands(database: duckdb.DuckDBPyConnection) -> None:
    index = VerdictIndex(database.sql("SELECT * FROM verdicts_table").to_arrow_table())
    photos = database.sql("SELECT image_uri, image_etag, box FROM latest").to_arrow_table()
    told = dict(database.sql("SELECT image_uri, verdict FROM latest_verdicts").fetchall())
    assert told == {"changed": "defect", "fine": "good", "south": "unsure"}
    assert [told.get(uri) for uri in photos["image_uri"].to_pylist()] == index.find_each(photos)


def test_judged_photos_are_not_on_the_list_of_what_to_look_at(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "inspection_priority")
    assert [(row["place"], row["image_uri"], row["of_site"]) for row in rows] == [(1, PHOTO, 2), (2, "later", 2)]


def test_the_list_of_few_false_discoveries_is_benjamini_and_hochberg_s(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "false_discovery_list")
    assert [(row["image_uri"], round(row["q_value"], 6)) for row in rows] == [("changed", 0.05), ("fine", 0.1)]


def test_the_share_of_flawless_photos_follows_from_large_p_values(database: duckdb.DuckDBPyConnection) -> None:
    (row,) = ask(database, "false_alarms")
    assert (row["photos"], row["alarms"], float(row["expected_if_all_were_flawless"])) == (5, 2, 0.25)
    assert (float(row["flawless_share"]), float(row["true_alarms"])) == (0.4, 1.9)
    assert row["flawless_low"] <= 0.4 <= row["flawless_high"]


@pytest.mark.parametrize("photos", [24, 39, 99])
def test_false_alarms_are_counted_as_in_the_run_record(photos: int, tmp_path: Path) -> None:
    grid = [rank / (photos + 1) for rank in range(1, photos + 2)]
    rows = [
        scored(f"{number}", p_value, calibration_photos=photos, smallest_p_value=1 / (photos + 1))
        for number, p_value in enumerate(grid[:3] + grid)
    ]
    commit_rows(f"file://{tmp_path}/results", rows)
    ranks = count_ranks(photos, 0.05)
    counts = Counter(row["p_value"] for row in rows)
    alarms = sum(p_value <= 0.05 for p_value in counts.elements())
    record = estimate_alarms(counts, calibration_photos=photos, ranks=ranks, alarms=alarms)
    database = connect(tmp_path / "results")
    (row,) = ask(database, "false_alarms")
    (state,) = ask(database, "latest_state")
    (run,) = database.sql("SELECT expected_false_alarms FROM runs").fetchall()
    budgets = {float(one["rate"]): one["expected_if_all_were_flawless"] for one in ask(database, "other_budgets")}
    expected = pytest.approx(record.expected_false_alarms)
    assert (row["expected_if_all_were_flawless"], state["expected_if_all_were_flawless"]) == (expected, expected)
    assert (run[0], budgets[0.05]) == (expected, expected)
    assert budgets[0.001] == 0
    assert 1 - row["flawless_share"] == pytest.approx(record.defective_share.value)
    assert row["true_alarms"] == pytest.approx(alarms - record.false_alarms.value)


def test_a_photo_is_shown_by_the_newest_map_of_its_bytes_and_detector(database: duckdb.DuckDBPyConnection) -> None:
    rows = ask(database, "explained")
    assert [(row["image_uri"], row["overlay_uri"]) for row in rows] == [
        ("changed", "newest"),
        ("fine", None),
        (PHOTO, None),
        ("south", None),
        ("later", None),
    ]


def test_a_run_is_one_row(database: duckdb.DuckDBPyConnection) -> None:
    rows = database.execute("SELECT run_id, photos, scored, unreadable, failed, anomalies FROM runs ORDER BY run_id")
    assert rows.fetchall() == [("night-1", 7, 5, 1, 1, 2), ("night-2", 4, 2, 0, 0, 1), ("night-3", 4, 4, 0, 0, 2)]


def test_the_views_have_every_column_and_the_rate_that_a_threshold_attains(database: duckdb.DuckDBPyConnection) -> None:
    for view in ("scores", "latest"):
        assert [row[0] for row in database.execute(f"DESCRIBE {view}").fetchall()] == [*ROWS.names, "attained_rate"]


@pytest.mark.parametrize("dialect", ["duckdb", "athena", "trino", "spark"])
@pytest.mark.parametrize("path", [FOLDER / "views.sql", *QUESTIONS], ids=lambda path: path.stem)
def test_a_statement_is_of_every_engine_s_dialect(path: Path, dialect: str) -> None:
    for statement in sqlglot.parse(path.read_text(), read=dialect):
        assert statement is not None
        assert not list(statement.find_all(exp.Command))
        assert [function.name for function in statement.find_all(exp.Anonymous)] == []
        assert not list(statement.find_all(exp.Qualify))


@pytest.mark.parametrize("dialect", ["duckdb", "athena", "spark"])
def test_an_engine_s_tables_are_named_in_its_dialect(dialect: str) -> None:
    statements = sqlglot.parse((FOLDER / f"tables_{dialect}.sql").read_text(), read=dialect)
    created = {statement.find(exp.Table).name for statement in statements if isinstance(statement, exp.Create)}
    assert created == {"scores_table", "verdicts_table", "maps_table"}


def test_the_page_names_every_question() -> None:
    said = PAGE.read_text()
    assert [name for name in sorted(NAMES) if f"`{name}.sql`" not in said] == []


@pytest.mark.parametrize("schema", [ROWS, VERDICTS, MAPS], ids=["scores", "verdicts", "maps"])
def test_the_page_s_columns_are_those_of_the_schema(schema: pa.Schema) -> None:
    assert document_columns(schema) in PAGE.read_text()


@pytest.mark.parametrize("number", range(5))
def test_every_example_of_the_page_returns_each_photo_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nights(f"file://{tmp_path}/results")
    write_verdicts(str(tmp_path / "results"))
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(blocks(PAGE, "python")[number], "analysts.md", "exec"), found)
    assert capsys.readouterr().out
    assert count_photos(found["photos"] if "photos" in found else duckdb.sql("FROM latest")) == (8, 8)


def count_photos(photos: Any) -> tuple[int, int]:
    """Rows, and photos in them, of what an example has made: of DuckDB, pandas, polars or Arrow."""
    if isinstance(photos, duckdb.DuckDBPyRelation):
        rows = [row[0] for row in photos.select("image_uri").fetchall()]
    else:
        rows = list(photos.collect()["image_uri"] if hasattr(photos, "collect") else photos["image_uri"])
    return len(rows), len({str(row) for row in rows})
