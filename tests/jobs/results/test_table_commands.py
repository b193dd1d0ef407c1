"""Care of the table: what each command does to files, and that no reader or run is hurt by it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import EXIT_DONE, RequestError
from jobs.results.commands import print_files, run_table_command
from jobs.results.delta import open_table
from jobs.results.known import read_latest, read_rows, stream_known, stream_rows
from jobs.results.maintenance import optimize_table, vacuum_table
from jobs.results.orphans import remove_orphans
from jobs.results.runs import describe_future_rows
from jobs.tables.schema import SCORES
from tests.jobs.results.score_rows import (
    DAY,
    commit_rows,
    create_with_day_folders,
    list_photos,
    night,
    score_row,
)

ORPHAN = "{run}-00007-0123456789ab-00000.parquet"


@pytest.fixture(params=["new", "with day folders"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Results with three slices of one night and one of the next, in a new table and in one of before."""
    results = f"file://{tmp_path}/results"
    if request.param == "with day folders":
        create_with_day_folders(results)
    for number, photo in enumerate("abc"):
        commit_rows(results, [score_row(photo)], slice_number=number, known_since=number)
    commit_rows(
        results,
        [score_row("a", run_id="night-2", day=night(1), p_value=0.01)],
        run_id="night-2",
        day=night(1),
        known_since=3,
    )
    return tmp_path / "results"


def data_files(folder: Path) -> set[str]:
    """The data files below the table."""
    return {str(path.relative_to(folder / "scores")) for path in folder.glob("scores/**/*.parquet")}


def count_folders(folder: Path) -> int:
    """The folders that data files lie in."""
    return len({path.parent for path in folder.glob("scores/**/*.parquet")})


def leave_orphan(folder: Path, run: str, *, age_h: float = 0.0) -> Path:
    """A file as a run leaves it that dies before its commit."""
    path = folder / "scores" / ORPHAN.format(run=run)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(SCORES.names)], schema=SCORES), path)
    then = datetime.now(UTC).timestamp() - age_h * 3600
    os.utime(path, (then, then))
    return path


def lease(folder: Path, run: str) -> None:
    """What a run holds while it works."""
    place = folder / "staging" / run / "lease.json"
    place.parent.mkdir(parents=True)
    place.write_text("{}")


def test_optimize_gathers_small_files_of_one_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = [("image_uri", "ascending"), ("run_date", "ascending")]
    before = read_rows(f"file://{folder}", ["image_uri", "run_date", "p_value"]).sort_by(order)
    assert run_table_command(["optimize", "--results", str(folder)]) == EXIT_DONE
    assert f"4 files before, {count_folders(folder)} now" in capsys.readouterr().out
    assert read_rows(f"file://{folder}", ["image_uri", "run_date", "p_value"]).sort_by(order) == before
    assert not list(folder.glob("scores/_delta_log/*.parquet"))


def test_optimize_gathers_rescored_and_deleted_rows_too(folder: Path) -> None:
    results = f"file://{folder}"
    for number, part in enumerate(("rescored", "deleted")):
        commit_rows(results, [score_row("d")], run_id=f"night-1/{part}", known_since=4 + number)
    assert optimize_table(results).files_after == count_folders(folder)
    assert list_photos(results) == ["a", "a", "b", "c", "d", "d"]


def test_a_vacuum_leaves_what_an_earlier_version_needs_until_the_retention_has_passed(folder: Path) -> None:
    results = f"file://{folder}"
    optimize_table(results)
    assert vacuum_table(results, retention_hours=168) == []
    assert len(list(stream_rows(results, ["image_uri"], version=3))) == 3
    replaced = {1: 4, 2: 3}[count_folders(folder)]  # the second of two days has one file alone
    assert len(vacuum_table(results, retention_hours=0, dry_run=True)) == replaced
    assert len(data_files(folder)) == 5
    assert len(vacuum_table(results, retention_hours=0)) == replaced
    assert list_photos(results) == ["a", "a", "b", "c"]
    assert len(pq.read_table(folder / "scores")) == 4


def test_a_vacuum_without_retention_waits_for_runs_under_way(folder: Path) -> None:
    lease(folder, "night-3")
    kept = leave_orphan(folder, "night-3")
    with pytest.raises(RequestError, match=r"run night-3 is under way.*--retention-hours"):
        vacuum_table(f"file://{folder}", retention_hours=0)
    assert vacuum_table(f"file://{folder}", retention_hours=24) == []
    assert kept.exists()


def test_a_run_goes_on_through_optimize_and_vacuum(folder: Path) -> None:
    results = f"file://{folder}"
    known_since, known = stream_known(results, ["image_uri"])
    next(known)
    optimize_table(results)
    vacuum_table(results, retention_hours=24)
    assert sum(len(batch) for batch in known) == 3
    done = commit_rows(
        results,
        [score_row("a", run_id="night-3"), score_row("d", run_id="night-3")],
        run_id="night-3",
        known_since=known_since,
    )
    assert (done.rows, done.dropped) == (2, 0)


def test_leftovers_of_dead_runs_go_and_those_of_live_runs_stay(folder: Path) -> None:
    results = f"file://{folder}"
    lease(folder, "alive")
    lease(folder, "mine")
    lease(folder, "long-dead")
    alive = leave_orphan(folder, "alive")
    foreign = alive.with_name("by-hand.parquet")
    foreign.write_bytes(alive.read_bytes())
    gone = [
        leave_orphan(folder, "dead"),
        leave_orphan(folder, "mine"),
        leave_orphan(folder, "dead@rescored"),
        leave_orphan(folder, "long-dead", age_h=25),
    ]
    before = data_files(folder)
    assert sorted(remove_orphans(results, run_id="mine")) == sorted(f"file://{path}" for path in gone)
    assert data_files(folder) == before - {str(path.relative_to(folder / "scores")) for path in gone}
    assert list_photos(results) == ["a", "a", "b", "c"]


def test_replaced_files_are_no_leftovers(folder: Path) -> None:
    optimize_table(f"file://{folder}")
    assert remove_orphans(f"file://{folder}", run_id="mine") == []


def test_repair_takes_lost_files_out_and_runs_go_on_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = f"file://{folder}"
    next(iter(folder.glob("scores/**/night-1-00001-*"))).unlink()
    _, known = stream_known(results, ["image_uri"])
    assert sorted(uri for batch in known for uri in batch.column(0).to_pylist()) == ["a", "a", "c"]
    assert "1 files of" in (said := capsys.readouterr().err)
    assert "jobs.table repair" in said
    assert run_table_command(["repair", "--results", str(folder), "--dry-run"]) == EXIT_DONE
    assert run_table_command(["repair", "--results", str(folder)]) == EXIT_DONE
    assert "1 files are lost and were taken out" in capsys.readouterr().out
    assert list_photos(results) == ["a", "a", "c"]


def test_history_names_runs_and_slices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_table_command(["history", "--results", str(folder), "--format", "json"]) == EXIT_DONE
    commits = json.loads(capsys.readouterr().out)
    assert [(one["version"], one["run"], one["slice"], one["rows"]) for one in commits[:2]] == [
        (4, "night-2", 0, 1),
        (3, "night-1", 2, 1),
    ]
    assert run_table_command(["history", "--results", str(folder), "--limit", "1"]) == EXIT_DONE
    assert capsys.readouterr().out.count("night-") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_runs_of_results_that_have_none_are_a_wrong_request(tmp_path: Path, form: str) -> None:
    output = tmp_path / "runs.parquet"
    with pytest.raises(RequestError, match=r"nothing has no run: none was started there yet, or correct --results"):
        run_table_command(["runs", "--results", f"{tmp_path}/nothing", "--format", form, "--output", str(output)])
    assert not output.exists()


def test_the_export_has_the_newest_row_of_each_photo_and_box(folder: Path, tmp_path: Path) -> None:
    commit_rows(f"file://{folder}", [score_row("a", box="0,0,8,8", run_id="night-3")], run_id="night-3")
    output = tmp_path / "latest.parquet"
    assert run_table_command(["export", "--results", str(folder), "--output", str(output)]) == EXIT_DONE
    found = pq.read_table(output)
    rows = [(row["image_uri"], row["box"], row["p_value"], row["run_date"]) for row in found.to_pylist()]
    assert rows == [
        ("a", None, 0.01, night(1)),
        ("a", "0,0,8,8", 0.5, DAY),
        ("b", None, 0.5, DAY),
        ("c", None, 0.5, DAY),
    ]
    assert found.drop_columns(["run_date"]).schema.equals(SCORES)
    assert len(read_latest(f"file://{folder}", ["image_uri"])) == 4


@pytest.mark.parametrize("command", ["export", "runs"])
@pytest.mark.parametrize("place", ["scores/latest.parquet", "scores/run_date=2026-03-09/x.parquet"])
def test_no_file_is_written_into_the_table(folder: Path, command: str, place: str) -> None:
    (folder / "runs").mkdir()
    (folder / "runs" / "night-1.json").write_text(json.dumps({"run_id": "night-1"}))
    before = data_files(folder)
    with pytest.raises(RequestError, match="lies in the result table, whose plain readers would count its rows too"):
        run_table_command([command, "--results", str(folder), "--output", f"{folder}/{place}"])
    assert data_files(folder) == before


def test_rows_of_one_run_are_read_from_its_files(folder: Path) -> None:
    (batch,) = stream_rows(f"file://{folder}", ["image_uri", "p_value"], run_id="night-2")
    assert batch.to_pylist() == [{"image_uri": "a", "p_value": 0.01}]


def test_rows_of_later_than_now_are_said(folder: Path) -> None:
    results, tomorrow = f"file://{folder}", datetime.now(UTC) + timedelta(days=1)
    assert describe_future_rows(results) == ""
    assert describe_future_rows(f"{results}/nothing") == ""
    commit_rows(results, [score_row("d", scored_at=tomorrow)], run_id="ahead", known_since=4)
    assert f"has rows of {tomorrow:%Y-%m-%d %H:%M} UTC, later than now" in describe_future_rows(results)
    optimize_table(results)
    assert "later than now" in describe_future_rows(results)


def write_old_results(folder: Path) -> None:
    """Results as version 1 wrote them: two runs, one that died, one whose file is lost."""
    old = pa.schema(list(SCORES)[:19])
    for run, photos in {"n1": "ab", "n2": "c", "dead": "z", "lost": "y"}.items():
        place = folder / "scores" / "run_date=2026-01-05" / f"{run}-00000.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {**dict.fromkeys(old.names), **{k: v for k, v in score_row(p, run_id=run).items() if k in old.names}}
            for p in photos
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=old), place)
        record = {"run_id": run, "files": [str(place.relative_to(folder))]}
        (folder / "runs").mkdir(exist_ok=True)
        if run != "dead":
            (folder / "runs" / f"{run}.json").write_text(json.dumps(record))
        if run == "lost":
            place.unlink()


def test_a_table_of_before_is_refused_until_it_is_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_old_results(tmp_path)
    results = f"file://{tmp_path}"
    with pytest.raises(RequestError, match=r"is no table yet: .*python -m jobs.table adopt --results"):
        commit_rows(results, [score_row("d")])
    before = {path: path.read_bytes() for path in tmp_path.glob("scores/**/*.parquet")}
    assert run_table_command(["adopt", "--results", str(tmp_path)]) == EXIT_DONE
    said = capsys.readouterr()
    assert "2 files, 3 rows" in said.out
    assert "1 files are of runs that never ended" in said.out
    assert "1 files that run records name are lost" in said.err
    assert {path: path.read_bytes() for path in tmp_path.glob("scores/**/*.parquet")} == before
    assert list_photos(results) == ["a", "b", "c"]
    assert commit_rows(results, [score_row("d", weights_id="w1")], known_since=0).rows == 1
    assert read_rows(results, ["weights_id"])["weights_id"].to_pylist().count(None) == 3
    table = open_table(results)
    assert table is not None
    assert table.to_pyarrow_table()["box"].null_count == 4
    with pytest.raises(RequestError, match="is a Delta table already"):
        run_table_command(["adopt", "--results", str(tmp_path)])


def test_nothing_to_adopt_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="names a file of a table: nothing to adopt"):
        run_table_command(["adopt", "--results", str(tmp_path)])


@pytest.mark.parametrize("command", ["optimize", "vacuum", "repair", "history"])
def test_commands_on_a_folder_without_table_say_so(command: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no table: nothing was published there yet"):
        run_table_command([command, "--results", str(tmp_path)])


def test_an_unknown_command_names_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"expected a command \(optimize, .*, adopt, columns\)"):
        run_table_command(["compact"])


def test_names_of_files_reach_a_terminal_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_files(["run_date=2026-03-09/\x1b[2J.parquet"], "deleted")
    assert capsys.readouterr().out == "1 files deleted\nrun_date=2026-03-09/\\x1b[2J.parquet\n"
