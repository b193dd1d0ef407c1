"""What other programs, and earlier versions of this one, may have done to a result table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.errors import EXIT_DONE, RequestError
from jobs.results import commit
from jobs.results import delta as delta_module
from jobs.results.commands import run_table_command
from jobs.results.delta import ROWS, open_table
from jobs.results.known import read_rows, stream_known
from jobs.results.maintenance import optimize_table, read_history, repair_table, vacuum_table
from jobs.results.orphans import remove_orphans
from tests.jobs.results.score_rows import (
    DAY,
    commit_rows,
    create_with_day_folders,
    list_photos,
    night,
    score_row,
)


@pytest.fixture(params=["new", "with day folders"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two nights of a photo each, in a new table and in one of before."""
    found = f"file://{tmp_path}/results"
    if request.param == "with day folders":
        create_with_day_folders(found)
    for number in range(2):
        row = score_row(f"p{number}", run_id=f"night-{number}", day=night(number))
        commit_rows(found, [row], run_id=f"night-{number}", day=night(number), known_since=number)
    forget()
    return found


def forget() -> None:
    """Makes the next call open the table as another process does."""
    delta_module._OPEN.__dict__.clear()


def locate_scores(results: str) -> Path:
    """The folder of the table."""
    return Path(results.removeprefix("file://")) / "scores"


def add_commit(results: str, *actions: dict[str, Any]) -> None:
    """Writes the next version of the log by hand."""
    log = locate_scores(results) / "_delta_log"
    number = len(list(log.glob("*.json")))
    (log / f"{number:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    forget()


def turn_on(results: str, *features: str) -> None:
    """Turns features of Delta Lake on, as Spark does with the property of each."""
    named = {"readerFeatures": list(features), "writerFeatures": list(features)}
    add_commit(results, {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **named}})


def change_schema(results: str, edit: Callable[[dict[str, Any]], None]) -> None:
    """Commits other metadata: ``edit`` changes the action."""
    log = locate_scores(results) / "_delta_log"
    lines = [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]
    metadata = [line["metaData"] for line in lines if "metaData" in line][-1]
    edit(metadata)
    add_commit(results, {"metaData": metadata})


def rename_type(metadata: dict[str, Any]) -> None:
    """Makes a text of the p-values."""
    schema = json.loads(metadata["schemaString"])
    (field,) = (field for field in schema["fields"] if field["name"] == "p_value")
    field["type"] = "string"
    metadata["schemaString"] = json.dumps(schema)


def map_columns(metadata: dict[str, Any]) -> None:
    """Says that columns have other names in the files, as tables of the older protocol do."""
    metadata["configuration"]["delta.columnMapping.mode"] = "name"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda results: turn_on(results, "deletionVectors"), "has the Delta feature deletionVectors, which another"),
        (lambda results: turn_on(results, "columnMapping"), "has the Delta feature columnMapping"),
        (lambda results: change_schema(results, map_columns), "has the Delta feature columnMapping"),
        (
            lambda results: change_schema(results, rename_type),
            "has the column p_value as string, expected double: another program has changed it",
        ),
    ],
    ids=["deletion vectors", "column mapping", "column mapping of before", "another type"],
)
def test_a_table_whose_files_alone_would_be_misread_is_refused_and_left_as_it_is(
    results: str, change: Callable[[str], None], said: str
) -> None:
    change(results)
    before = {path: path.read_bytes() for path in locate_scores(results).rglob("*") if path.is_file()}
    for use in (
        lambda: stream_known(results, ["image_uri"]),
        lambda: commit_rows(results, [score_row("new")], slice_number=9),
        lambda: optimize_table(results),
        lambda: remove_orphans(results, run_id="new"),
        lambda: vacuum_table(results, retention_hours=0),
    ):
        with pytest.raises(RequestError, match=said) as raised:
            use()
        assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in locate_scores(results).rglob("*") if path.is_file()} == before


def test_a_table_that_another_program_has_divided_is_refused(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([dict.fromkeys(ROWS.names) | score_row("x") | {"run_date": DAY}], schema=ROWS)
    write_deltalake(f"{tmp_path}/scores", rows, partition_by=["site"])
    with pytest.raises(RequestError, match="has partitions by site, expected none or run_date: another program"):
        commit_rows(f"file://{tmp_path}", [score_row("new")])


def append_by_hand(results: str, *photos: str) -> None:
    """Adds rows as an analyst does, with a column more."""
    rows = [dict.fromkeys(ROWS.names) | score_row(photo) | {"run_date": DAY, "note": "by hand"} for photo in photos]
    table = pa.Table.from_pylist(rows, schema=ROWS.append(pa.field("note", pa.string())))
    write_deltalake(str(locate_scores(results)), table, mode="append", schema_mode="merge")
    forget()


def test_rows_and_columns_that_another_program_has_added_stay(results: str) -> None:
    append_by_hand(results, "x", "y")
    assert list_photos(results) == ["p0", "p1", "x", "y"]
    known_since, _ = stream_known(results, ["image_uri"])
    assert commit_rows(results, [score_row("p2")], run_id="late", known_since=known_since).rows == 1
    optimize_table(results)
    assert vacuum_table(results, retention_hours=0)
    assert list_photos(results) == ["p0", "p1", "p2", "x", "y"]
    notes = DeltaTable(str(locate_scores(results))).to_pandas()["note"]
    assert notes.dropna().tolist() == ["by hand"] * 2


def test_joining_days_does_not_lose_a_column_of_others(results: str) -> None:
    append_by_hand(results, "x")
    if DeltaTable(str(locate_scores(results))).metadata().partition_columns:
        with pytest.raises(RequestError, match="has the column note of another program, which files that are written"):
            optimize_table(results, join_days=True)
    else:
        assert optimize_table(results, join_days=True).files_after == 1
    assert DeltaTable(str(locate_scores(results))).to_pandas()["note"].dropna().tolist() == ["by hand"]


def clean_log(results: str) -> None:
    """Leaves a checkpoint in place of the log, as Spark does after its retention."""
    DeltaTable(str(locate_scores(results))).create_checkpoint()
    log = locate_scores(results) / "_delta_log"
    for path in sorted(log.glob("*.json"))[:-1]:
        path.unlink()
    forget()


def test_a_table_whose_log_was_cleaned_up_goes_on(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    clean_log(results)
    known_since, known = stream_known(results, ["image_uri"])
    assert sorted(uri for batch in known for uri in batch.column(0).to_pylist()) == ["p0", "p1"]
    assert commit_rows(results, [score_row("p2")], run_id="late", known_since=known_since).rows == 1
    assert commit_rows(results, [score_row("p0")], run_id="night-0", known_since=known_since).already
    assert run_table_command(["history", "--results", results]) == EXIT_DONE
    assert "late" in capsys.readouterr().out
    assert optimize_table(results, join_days=True).files_after == 1
    assert vacuum_table(results, retention_hours=0)
    assert list_photos(results) == ["p0", "p1", "p2"]
    assert sorted(read_rows(results, ["run_date"])["run_date"].to_pylist()) == [DAY, DAY, night(1)]


def test_a_commit_that_says_nothing_of_itself_is_in_the_history(
    results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_commit(results, {"commitInfo": {"operation": "WRITE"}})
    assert read_history(results, limit=1)[0]["at"] is None
    assert run_table_command(["history", "--results", results]) == EXIT_DONE
    assert "WRITE" in capsys.readouterr().out


@pytest.fixture
def of_before(results: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Slices of parts of a run, whose files earlier versions called RUN~PART."""
    names = property(lambda mine: f"{mine.run_id.replace('/', '~')}-{mine.number:05d}")
    with monkeypatch.context() as before:
        before.setattr(commit.Slice, "file_name", names)
        for number, photo in enumerate(("r0", "r1")):
            row = score_row(photo, run_id="night-2", day=night(2))
            commit_rows(
                results, [row], run_id="night-2/rescored", slice_number=number, day=night(2), known_since=2 + number
            )
    assert len(list(locate_scores(results).rglob("night-2~rescored-*"))) == 2
    forget()
    return results


def test_files_with_names_of_before_are_read_and_kept(of_before: str) -> None:
    assert list_photos(of_before) == ["p0", "p1", "r0", "r1"]
    assert repair_table(of_before) == []
    assert remove_orphans(of_before, run_id="late") == []
    assert vacuum_table(of_before, retention_hours=0) == []


@pytest.mark.parametrize("name", ["of ann.parquet", "ünï.parquet", "50%25.parquet", "a+b~c.parquet"])
def test_files_that_others_have_named_are_read_and_kept(results: str, name: str) -> None:
    """The log has their names percent-encoded, and a file that no version named would be deleted as a leftover."""
    table = open_table(results)
    assert table is not None
    folder = "run_date=2026-03-09/" if table.metadata().partition_columns else ""
    place = locate_scores(results) / f"{folder}{name}"
    place.parent.mkdir(exist_ok=True)
    columns = [field.name for field in ROWS if not folder or field.name != "run_date"]
    rows = pa.Table.from_pylist([dict.fromkeys(ROWS.names) | score_row("x") | {"run_date": DAY}], schema=ROWS)
    pq.write_table(rows.select(columns), place)
    values = {"run_date": "2026-03-09"} if folder else {}
    added = {"path": quote(f"{folder}{name}", safe="/=~+"), "partitionValues": values, "size": place.stat().st_size}
    add_commit(results, {"add": added | {"modificationTime": 0, "dataChange": True}})
    assert list_photos(results) == ["p0", "p1", "x"]
    assert repair_table(results) == []
    assert remove_orphans(results, run_id="late") == []
    assert vacuum_table(results, retention_hours=0) == []
    optimize_table(results, join_days=True)
    assert list_photos(results) == ["p0", "p1", "x"]
    assert f"file://{place}" in vacuum_table(results, retention_hours=0)
    assert list_photos(results) == ["p0", "p1", "x"]
    assert len(DeltaTable(str(locate_scores(results))).to_pandas()) == 3


def test_a_repair_takes_out_the_lost_file_alone(of_before: str) -> None:
    (lost,) = locate_scores(of_before).rglob("night-0-*")
    lost.unlink()
    assert repair_table(of_before) == [f"file://{lost}"]
    forget()
    assert list_photos(of_before) == ["p1", "r0", "r1"]


@pytest.mark.parametrize("join_days", [False, True])
def test_a_compaction_gathers_files_with_names_of_before(of_before: str, join_days: bool) -> None:
    known_since, _ = stream_known(of_before, ["image_uri"])
    optimize_table(of_before, join_days=join_days)
    table = open_table(of_before)
    assert table is not None
    assert not [uri for uri in table.file_uris() if "~" in uri or "%7E" in uri]
    assert len(table.file_uris()) == (3 if table.metadata().partition_columns else 1)
    again = commit_rows(of_before, [score_row("r0", run_id="late")], run_id="late", known_since=known_since)
    assert (again.rows, again.dropped) == (1, 0)  # it knew of that row: no file of the compaction is new to it
    assert remove_orphans(of_before, run_id="late") == []
    assert len(vacuum_table(of_before, retention_hours=0)) >= 2
    assert not list(locate_scores(of_before).rglob("*~*"))
    assert list_photos(of_before) == ["p0", "p1", "r0", "r0", "r1"]
    found = read_rows(of_before, ["image_uri", "run_date"]).to_pylist()
    assert {row["run_date"] for row in found if row["image_uri"] == "r1"} == {night(2)}
