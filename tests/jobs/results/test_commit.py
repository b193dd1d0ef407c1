"""One commit per slice, once, and no photo twice whoever writes at the same time: local files and a real S3 server."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from jobs.errors import JobError, StorageError
from jobs.results import commit, delta, files
from jobs.results.access import make_location, make_storage_options
from jobs.results.commit import commit_slice
from jobs.results.delta import locate_table, open_table
from jobs.results.known import stream_known
from jobs.storage import uris
from jobs.tables.schema import SCORES
from tests.jobs.results.score_rows import DAY, commit_rows, list_photos, score_row


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Results that do not exist yet, in each kind of store."""
    if request.param == "file":
        return f"file://{tmp_path}/the results #1"
    return uris.join(str(request.getfixturevalue("bucket")), "results")


def read_as_others_do(results: str) -> pa.Table:
    """The table as any reader of Delta Lake sees it."""
    uri = locate_table(results)
    return DeltaTable(make_location(uri), storage_options=make_storage_options(uri)).to_pyarrow_table()


def test_slices_are_added_one_by_one_and_read_by_any_reader(results: str) -> None:
    first = commit_rows(results, [score_row("a"), score_row("b")])
    second = commit_rows(results, [score_row("c")], slice_number=1, known_since=first.version)
    assert (first.rows, second.rows, second.version - first.version) == (2, 1, 1)
    found = read_as_others_do(results)
    assert sorted(found["image_uri"].to_pylist()) == ["a", "b", "c"]
    assert set(found["run_date"].to_pylist()) == {DAY}
    assert [name for name in SCORES.names if name not in found.column_names] == []


def test_a_slice_that_is_committed_again_adds_nothing(results: str) -> None:
    commit_rows(results, [score_row("a")])
    table = open_table(results)
    assert table is not None

    def refuse() -> object:
        raise AssertionError("the rows of a slice that is there are not read")
        yield

    again = commit_slice(results, refuse(), run_id="night-1", slice_number=0, run_date=DAY, known_since=-1)
    assert (again.already, again.rows, again.version) == (True, 0, table.version())
    assert list_photos(results) == ["a"]


def test_rows_that_others_have_committed_since_are_left_out(results: str) -> None:
    known_since, _ = stream_known(results, ["image_uri"])
    commit_rows(results, [score_row("a", run_id="other"), score_row("b", run_id="other")], run_id="other")
    mine = commit_rows(results, [score_row("b"), score_row("c")], known_since=known_since)
    assert (mine.rows, mine.dropped) == (1, 1)
    assert list_photos(results) == ["a", "b", "c"]


@pytest.mark.parametrize("results", ["file"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        {"image_etag": "new bytes"},
        {"box": "0,0,10,10"},
        {"weights_id": "w2"},
        {"detector_id": "d2"},
        {"false_alarm_rate": 0.01},
        {"confidence": 0.9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_result_of_the_same_photo_is_kept(results: str, change: dict[str, object]) -> None:
    commit_rows(results, [score_row("a", run_id="other")], run_id="other")
    assert commit_rows(results, [score_row("a", **change)]).rows == 1


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_rows_that_the_run_knew_of_are_written_again(results: str) -> None:
    before = commit_rows(results, [score_row("a", run_id="night-0", status="failed")], run_id="night-0")
    assert commit_rows(results, [score_row("a", attempt=2)], known_since=before.version).rows == 1


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_a_compaction_by_others_drops_no_row(results: str) -> None:
    for number in range(3):
        before = commit_rows(
            results, [score_row("a", run_id=f"n{number}", status="failed")], run_id=f"n{number}", known_since=number
        )
    table = open_table(results)
    assert table is not None
    table.optimize.compact()
    assert commit_rows(results, [score_row("a")], known_since=before.version).dropped == 0


@pytest.mark.slow
def test_two_runs_that_write_at_once_lose_nothing_and_double_nothing(results: str) -> None:
    known_since, _ = stream_known(results, ["image_uri"])
    photos, begin, failures = [f"photo-{number:02d}" for number in range(20)], threading.Barrier(3), []

    def work(run_id: str, order: list[str]) -> None:
        begin.wait()
        try:
            for number, photo in enumerate(order):
                commit_rows(
                    results,
                    [score_row(photo, run_id=run_id)],
                    run_id=run_id,
                    slice_number=number,
                    known_since=known_since,
                )
        except Exception as error:
            failures.append(error)

    orders = {"up": photos, "down": photos[::-1], "same": photos}
    threads = [threading.Thread(target=work, args=item) for item in orders.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list_photos(results) == photos


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_an_answer_that_got_lost_is_no_second_slice(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, told = commit.try_commit, []

    def lose_answer(*arguments: object) -> bool:
        told.append(write(*arguments))
        return False

    monkeypatch.setattr(commit, "try_commit", lose_answer)
    done = commit_rows(results, [score_row("a")])
    assert (done.rows, done.already, told) == (1, False, [True])
    assert list_photos(results) == ["a"]


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_a_slice_without_rows_is_known_as_done(results: str) -> None:
    assert commit_rows(results, []).rows == 0
    assert commit_rows(results, []).already


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_plain_parquet_readers_see_the_same_rows_after_many_commits(results: str) -> None:
    for number in range(12):  # more than Delta's usual interval of checkpoints, which are Parquet files too
        commit_rows(results, [score_row(f"photo-{number}")], slice_number=number, known_since=number)
    folder = results.removeprefix("file://")
    counted = duckdb.sql(f"SELECT count(*) FROM read_parquet('{folder}/scores/**/*.parquet')").fetchall()
    assert counted == [(12,)]
    assert len(pq.read_table(f"{folder}/scores")) == 12


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_the_next_commit_does_not_read_the_whole_log_again(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_rows(results, [score_row("a")])

    def refuse(*_: object) -> None:
        raise AssertionError("the table was opened anew")

    with monkeypatch.context() as watched:
        watched.setattr(delta, "open_table", refuse)
        commit_rows(results, [score_row("b")], slice_number=1)
    assert list_photos(results) == ["a", "b"]


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_another_table_at_the_same_place_is_noticed(results: str) -> None:
    commit_rows(results, [score_row("a")])
    shutil.rmtree(results.removeprefix("file://"))
    assert commit_rows(results, [score_row("b")]).rows == 1
    assert list_photos(results) == ["b"]


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_the_log_knows_what_each_file_has(results: str) -> None:
    rows = [score_row("a", category="cap", p_value=0.5), score_row("b", category=None, p_value=0.25)]
    commit_rows(results, rows)
    table = open_table(results)
    assert table is not None
    (found,) = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    assert (found["num_records"], found["min.image_uri"], found["max.image_uri"]) == (2, "a", "b")
    assert (found["min.p_value"], found["max.p_value"], found["null_count.category"]) == (0.25, 0.5, 1)
    dataset = table.to_pyarrow_dataset()
    assert dataset.count_rows(filter=pa.compute.field("p_value") < 0.2) == 0


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_files_do_not_grow_without_end(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FILE_BYTES", 1)
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 10)
    done = commit_rows(results, [score_row(f"photo-{number:02d}") for number in range(25)])
    table = open_table(results)
    assert table is not None
    assert (done.rows, len(table.file_uris()), len(list_photos(results))) == (25, 3, 25)


@pytest.mark.parametrize("results", ["file"], indirect=True)
@pytest.mark.parametrize("place", ["jobs.storage.local_files.put_file", "pyarrow.OSFile"], ids=["storage", "TMPDIR"])
def test_a_full_disk_is_said_and_nothing_is_committed(
    results: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_rows(results, [score_row("a")])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(place, refuse)
        with pytest.raises(JobError, match=r"no room is left .* nothing was committed: make room"):
            commit_rows(results, [score_row("b")], slice_number=1)
    assert list_photos(results) == ["a"]
    commit_rows(results, [score_row("b")], slice_number=1)
    assert list_photos(results) == ["a", "b"]


@pytest.mark.parametrize("results", ["file"], indirect=True)
def test_a_race_that_never_ends_is_told(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_MAX_TRIES", 3)
    monkeypatch.setattr(commit, "try_commit", lambda *_: False)
    with pytest.raises(StorageError, match="3 tries to commit lost against other runs"):
        commit_rows(results, [score_row("a")])
