"""Slices: each comes into the table as soon as it is staged, in order, once, whoever dies meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.cluster.run_log import RunLog
from jobs.errors import JobError, StorageError
from jobs.results.known import read_rows
from jobs.scoring.preparation import StagedRun
from jobs.scoring.publication import committer as committing
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.publication.slices import RunSlice
from jobs.scoring.publication.staged_files import StagedFiles
from jobs.scoring.run_folder import RunFolder
from jobs.storage import uris
from jobs.storage.lease import Lease, hold_lease
from jobs.tables.parquet import write_parquet
from tests.jobs.scoring.scored_rows import PLAN, make_manifest, make_scored

PHOTOS, SLICE = 10, 4


def make_run(folder: RunFolder, known_since: int = -1) -> StagedRun:
    """Stages what a run over PHOTOS photos begins with."""
    plan = PLAN.model_copy(update={"run_id": folder.run_id})
    write_parquet(make_manifest(PHOTOS), folder.manifest_part(0))
    return StagedRun(
        config={},
        plan=plan,
        listed=PHOTOS,
        to_score=PHOTOS,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        known_since=known_since,
        slice_photos=SLICE,
        rescored=0,
        listing_s=0.0,
        ordering_s=0.0,
    )


def stage(folder: RunFolder, name: str, image_ids: list[int], *, pending: bool = False) -> None:
    """Writes a staged file and its file of the checkpoint, as Ray Data does."""
    rows = make_manifest(PHOTOS).take(pa.array(image_ids))
    staged = make_scored(rows, [1.0] * len(rows), plan=PLAN.model_copy(update={"run_id": folder.run_id}))
    write_parquet(staged, uris.join(folder.rows, f"{name}.parquet"))
    write_parquet(rows.select(["image_id"]), uris.join(folder.checkpoint, f"{name}{'.pending' * pending}.parquet"))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(f"file://{tmp_path}/results", "night-1")


@pytest.fixture
def lease(folder: RunFolder) -> Iterator[Lease]:
    with hold_lease(folder.lease) as held:
        yield held


@pytest.fixture
def committer(folder: RunFolder, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> SliceCommitter:
    monkeypatch.setattr(committing, "LOOK_INTERVAL_S", 0.02)
    return SliceCommitter(folder, make_run(folder), lease=lease, log=RunLog("night-1"))


def count_rows(folder: RunFolder) -> dict[str, int]:
    return Counter(read_rows(folder.results, ["status"])["status"].to_pylist())


def wait_for_rows(folder: RunFolder, count: int) -> None:
    done = threading.Event()
    for _ in range(500):
        if len(read_rows(folder.results, ["status"])) >= count:
            return
        done.wait(0.02)
    pytest.fail(f"there were never {count} rows")


def test_a_slice_is_whole_when_each_of_its_rows_is_in_a_file_that_is_whole(folder: RunFolder) -> None:
    files = StagedFiles(folder, PHOTOS)
    stage(folder, "w_000000_000001", [0, 1, 4])
    stage(folder, "w_000000_000002-0", [2])
    stage(folder, "w_000000_000003", [3], pending=True)
    files.look()
    assert not files.has_all(RunSlice(0, 0, 4))
    stage(folder, "w_000000_000003", [3])
    files.look()
    assert files.has_all(RunSlice(0, 0, 4))
    assert not files.has_all(RunSlice(1, 4, 4))
    names = [uri.rsplit("/", 1)[1] for uri in files.list_files(RunSlice(0, 0, 4))]
    assert names == ["w_000000_000001.parquet", "w_000000_000002-0.parquet", "w_000000_000003.parquet"]
    assert files.list_files(RunSlice(2, 8, 2)) == []


def test_slices_come_into_the_table_in_order_while_the_pipeline_runs(
    folder: RunFolder, committer: SliceCommitter
) -> None:
    with committer.follow_pipeline(pytest.fail):
        stage(folder, "second", [4, 5, 6, 7])
        stage(folder, "first", [3, 2, 1, 0])
        wait_for_rows(folder, 8)
        stage(folder, "third", [8])
    assert [part.number for part in committer.left] == [2]
    assert count_rows(folder) == {"scored": 8}
    committer.commit_rest()
    assert count_rows(folder) == {"scored": 9, "failed": 1}
    uris_found = read_rows(folder.results, ["image_uri"])["image_uri"].to_pylist()
    assert sorted(uris_found) == make_manifest(PHOTOS)["image_uri"].to_pylist()


def test_a_later_try_begins_after_the_last_slice_in_the_table(
    folder: RunFolder, committer: SliceCommitter, lease: Lease
) -> None:
    stage(folder, "first", [0, 1, 2, 3])
    with committer.follow_pipeline(pytest.fail):
        wait_for_rows(folder, 4)
    again = SliceCommitter(folder, make_run(folder), lease=lease, log=RunLog("night-1"))
    assert [part.number for part in again.left] == [1, 2]
    again.commit_rest()
    assert count_rows(folder) == {"scored": 4, "failed": 6}


def test_a_commit_that_fails_ends_the_pipeline_with_its_own_reason(
    folder: RunFolder, committer: SliceCommitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("no room is left")

    monkeypatch.setattr(committing, "publish_slice", fail)
    stage(folder, "first", [0, 1, 2, 3])
    stopped = threading.Event()

    def run_pipeline() -> None:
        with committer.follow_pipeline(lambda _: stopped.set()):
            assert stopped.wait(10)
            raise JobError("scoring stopped: a stage was told to end")

    with pytest.raises(StorageError, match="no room is left"):
        run_pipeline()


def test_two_runs_over_the_same_photos_give_each_of_them_one_row(
    folder: RunFolder, committer: SliceCommitter, tmp_path: Path
) -> None:
    other = RunFolder(folder.results, "night-2")
    for run in (folder, other):
        stage(run, "all", list(range(PHOTOS)))
    with hold_lease(other.lease) as lease:
        late = SliceCommitter(other, make_run(other), lease=lease, log=RunLog("night-2"))
        committer.commit_next(committer._read_staged(committer.left[0]))
        late.commit_rest()
        committer.commit_rest()
    found = Counter(read_rows(folder.results, ["image_uri"])["image_uri"].to_pylist())
    assert set(found.values()) == {1}
    assert len(found) == PHOTOS
    assert (committer.dropped, late.dropped) == (6, 4)
