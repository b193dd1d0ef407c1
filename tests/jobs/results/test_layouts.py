"""Where the day of a row lies: in its file, or in the folders of a table of before. Rows are the same for everybody."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import storage
from jobs.errors import StorageError
from jobs.results import commit, maintenance
from jobs.results.commands import run_table_command
from jobs.results.delta import open_table
from jobs.results.known import read_rows, stream_known, stream_rows
from jobs.results.maintenance import optimize_table, vacuum_table
from tests.jobs.results.score_rows import (
    commit_rows,
    create_with_day_folders,
    list_photos,
    night,
    score_row,
)

EXPECTED = sorted((f"photo-{number}", night(number)) for number in range(4))


@pytest.fixture
def of_before(tmp_path: Path) -> str:
    """Four nights of a photo each in a table with a folder for each day."""
    results = f"file://{tmp_path}/the results #1"
    create_with_day_folders(results)
    return add_nights(results, range(4))


@pytest.fixture(params=["new", "of before", "joined"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same nights in each kind of table."""
    if request.param == "new":
        return add_nights(f"file://{tmp_path}/the results #1", range(4))
    found = str(request.getfixturevalue("of_before"))
    if request.param == "joined":
        optimize_table(found, join_days=True)
        vacuum_table(found, retention_hours=0)
    return found


def add_nights(results: str, numbers: Iterable[int]) -> str:
    """Commits a photo a night."""
    for number in numbers:
        row = score_row(f"photo-{number}", run_id=f"night-{number}", day=night(number))
        commit_rows(results, [row], run_id=f"night-{number}", day=night(number), known_since=number)
    return results


def read_days(results: str) -> list[tuple[str, date]]:
    """The photo and the day of each row."""
    found = read_rows(results, ["image_uri", "run_date"]).to_pylist()
    return sorted((row["image_uri"], row["run_date"]) for row in found)


def sort_days(rows: Iterable[tuple[Any, Any]]) -> list[tuple[str, date]]:
    """Photos and days as some reader has them, where a day may be a text, as in the name of a folder."""
    return sorted((str(photo), date.fromisoformat(str(day)[:10])) for photo, day in rows)


@pytest.mark.parametrize("is_compacted", [False, True], ids=["as written", "compacted"])
def test_plain_parquet_readers_see_each_row_once_with_its_day(results: str, is_compacted: bool) -> None:
    if is_compacted:
        optimize_table(results)
        vacuum_table(results, retention_hours=0)
    folder, names = f"{results.removeprefix('file://')}/scores", ["image_uri", "run_date"]
    found = {
        "duckdb": duckdb.sql(f"SELECT image_uri, run_date FROM read_parquet('{folder}/**/*.parquet')").fetchall(),
        "pandas": pd.read_parquet(folder)[names].itertuples(index=False, name=None),
        "polars": pl.read_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)[names].rows(),
        "pyarrow": [tuple(row.values()) for row in pq.read_table(folder, columns=names).to_pylist()],
    }
    assert {name: sort_days(rows) for name, rows in found.items()} == dict.fromkeys(found, EXPECTED)


def test_the_job_reads_each_row_with_its_day_before_and_after_a_compaction(results: str) -> None:
    assert read_days(results) == EXPECTED
    optimize_table(results)
    assert read_days(results) == EXPECTED
    between = stream_rows(results, ["image_uri"], days=(night(1), night(2)))
    assert sorted(row["image_uri"] for batch in between for row in batch.to_pylist()) == ["photo-1", "photo-2"]
    assert read_rows(results, ["image_uri"], run_id="night-3")["image_uri"].to_pylist() == ["photo-3"]


def test_readers_of_the_table_skip_files_of_other_days(results: str) -> None:
    add_nights(results, [4])
    table = open_table(results)
    assert table is not None
    dataset = table.to_pyarrow_dataset()
    assert len(list(dataset.get_fragments(filter=pc.field("run_date") == night(4)))) == 1
    assert dataset.count_rows(filter=pc.field("run_date") >= night(4)) == 1


def test_new_tables_have_no_folders_and_those_of_before_keep_theirs(tmp_path: Path, of_before: str) -> None:
    add_nights(f"file://{tmp_path}/new", range(2))
    new, old = tmp_path / "new" / "scores", Path(of_before.removeprefix("file://")) / "scores"
    assert [path.parent for path in new.rglob("*.parquet")] == [new, new]
    assert {path.parent.name for path in old.rglob("*.parquet")} == {f"run_date={night(n)}" for n in range(4)}
    assert all("run_date" not in pq.read_schema(path).names for path in old.rglob("*.parquet"))


def test_a_compaction_gathers_the_files_of_many_nights(tmp_path: Path) -> None:
    results = add_nights(f"file://{tmp_path}/results", range(10))
    assert optimize_table(results).files_after == 1
    add_nights(results, range(10, 13))
    assert optimize_table(results).files_after == 1
    assert read_days(results) == sorted((f"photo-{number}", night(number)) for number in range(13))


def test_a_compaction_leaves_files_that_are_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = f"file://{tmp_path}/results"
    commit_rows(results, [score_row(f"photo {uuid.uuid4()}") for _ in range(3000)], run_id="long")
    (large,) = (tmp_path / "results" / "scores").glob("long-*.parquet")
    monkeypatch.setattr(maintenance, "FILE_BYTES", large.stat().st_size - 1)
    add_nights(results, range(4))
    assert optimize_table(results).files_after == 2
    table = open_table(results)
    assert table is not None
    assert large.name in {uri.rsplit("/", 1)[1] for uri in table.file_uris()}


def test_a_table_of_before_says_how_its_days_are_joined(of_before: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["optimize", "--results", of_before]
    run_table_command(command)
    assert "4 files before, 4 now" in (said := capsys.readouterr().out)
    assert "--join-days" in said
    run_table_command([*command, "--join-days"])
    assert "4 files before, 1 now" in (said := capsys.readouterr().out)
    assert "--join-days" not in said
    run_table_command([*command, "--join-days"])
    assert "1 files before, 1 now" in capsys.readouterr().out


def test_joining_days_adds_no_row_and_readers_of_earlier_versions_go_on(of_before: str) -> None:
    table = open_table(of_before)
    assert table is not None
    version = table.version()
    known_since, known = stream_known(of_before, ["image_uri", "run_date"])
    optimize_table(of_before, join_days=True)
    assert sort_days(tuple(row.values()) for batch in known for row in batch.to_pylist()) == EXPECTED
    earlier = stream_rows(of_before, ["image_uri", "run_date"], version=version)
    assert sort_days(tuple(row.values()) for batch in earlier for row in batch.to_pylist()) == EXPECTED
    again = commit_rows(of_before, [score_row("photo-1", run_id="late")], run_id="late", known_since=known_since)
    assert (again.rows, again.dropped) == (1, 0)  # it knew of that row, and has its reasons to write it anew
    repeated = commit_rows(of_before, [score_row("photo-3")], run_id="night-3", known_since=known_since)
    assert repeated.already
    assert len(vacuum_table(of_before, retention_hours=0)) == 4
    assert list_photos(of_before) == ["photo-0", "photo-1", "photo-1", "photo-2", "photo-3"]


def test_a_slice_that_is_put_while_days_are_joined_comes_into_the_new_layout(
    of_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = commit.try_commit, list[int]()

    def join_first(*arguments: Any) -> bool:
        if not calls:
            thread = threading.Thread(target=optimize_table, args=(of_before,), kwargs={"join_days": True})
            thread.start()
            thread.join()
        calls.append(1)
        return write(*arguments)

    monkeypatch.setattr(commit, "try_commit", join_first)
    add_nights(of_before, [4])
    assert len(calls) == 2
    assert read_days(of_before) == [*EXPECTED, ("photo-4", night(4))]


def test_a_slice_that_is_committed_while_days_are_joined_is_joined_too(
    of_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, committed = storage.write, threading.Event()

    def commit_first(uri: str, data: bytes, **more: Any) -> Any:
        if not committed.is_set():
            committed.set()
            thread = threading.Thread(target=add_nights, args=(of_before, [4]))
            thread.start()
            thread.join()
        return write(uri, data, **more)

    with monkeypatch.context() as raced:
        raced.setattr(maintenance.storage, "write", commit_first)
        assert optimize_table(of_before, join_days=True).files_after == 1
    assert committed.is_set()
    assert read_days(of_before) == [*EXPECTED, ("photo-4", night(4))]


@pytest.mark.slow
@pytest.mark.parametrize("join_days", [False, True], ids=["optimize", "join days"])
@pytest.mark.parametrize("kind", ["new", "of before"])
def test_compactions_beside_two_runs_lose_no_row_and_double_none(tmp_path: Path, kind: str, join_days: bool) -> None:
    results = f"file://{tmp_path}/results"
    if kind == "of before":
        create_with_day_folders(results)
    known_since, _ = stream_known(results, ["image_uri"])
    photos, failures, begin = [f"photo-{number:02d}" for number in range(16)], list[Exception](), threading.Barrier(3)
    running = threading.Semaphore(0)

    def score(run_id: str, order: list[str]) -> None:
        begin.wait()
        try:
            for number, photo in enumerate(order):
                row = score_row(photo, run_id=run_id)
                commit_rows(
                    results, [row], run_id=run_id, slice_number=number, day=night(number % 3), known_since=known_since
                )
        except Exception as error:
            failures.append(error)
        running.release()

    def compact() -> None:
        begin.wait()
        while not (running.acquire(timeout=0.05) and running.acquire()):
            try:
                optimize_table(results, join_days=join_days)
            except StorageError as error:
                if "again" not in str(error):
                    failures.append(error)

    threads = [threading.Thread(target=score, args=item) for item in {"up": photos, "down": photos[::-1]}.items()]
    threads.append(threading.Thread(target=compact))
    commit_rows(results, [score_row("first", run_id="first")], run_id="first", known_since=known_since)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list_photos(results) == ["first", *photos]
    optimize_table(results, join_days=join_days)
    assert list_photos(results) == ["first", *photos]
