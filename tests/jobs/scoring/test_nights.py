"""Night after night over one archive, without Ray: what is settled, tried again, deleted, and left by dead runs."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs import storage
from jobs.errors import JobError, RequestError
from jobs.results.commands import run_table_command
from jobs.results.known import read_latest, read_rows
from jobs.scoring import preparation
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.publication import committer
from jobs.scoring.record import read_record, read_unfinished, write_unfinished
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.summary import list_alarms


def score(config: ScoreConfig, night: str, **more: object) -> list[tuple[str, str, int]]:
    """Runs a night; returns file name, status and attempt of each of its rows."""
    scoring.score_archive(config.model_copy(update={"run_id": night, "max_error_rate": 1.0, **more}))
    rows = read_rows(config.results, ["image_uri", "status", "attempt", "run_id"]).to_pylist()
    found = [row for row in rows if row["run_id"] == night]
    return sorted((row["image_uri"].rsplit("/", 1)[1], row["status"], row["attempt"]) for row in found)


def test_each_photo_has_one_row_however_many_slices_and_nights(local_config: ScoreConfig) -> None:
    found = score(local_config, "night-1", slice_photos=3)
    assert [status for _, status, _ in found] == ["scored", "scored", "scored", "unreadable"]
    record = read_record(RunFolder(local_config.results, "night-1"))
    assert record is not None
    assert (record["slices"], record["dropped"], record["already_scored"]) == (2, 0, 0)
    assert score(local_config, "night-2") == []


def test_a_photo_that_was_deleted_is_marked_once_and_scored_when_it_is_back(
    local_config: ScoreConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    score(local_config, "night-1")
    photo = Path(local_config.archive.removeprefix("file://")) / "0.jpg"
    data = photo.read_bytes()
    photo.unlink()
    assert score(local_config, "night-2") == []
    assert score(local_config, "night-3", mark_deleted=True) == [("0.jpg", "deleted", None)]
    assert "run night-3: 1 photos are marked as deleted" in capsys.readouterr().out
    assert score(local_config, "night-4", mark_deleted=True) == []
    latest = read_latest(local_config.results, ["image_uri", "status"]).to_pylist()
    assert Counter(row["status"] for row in latest) == {"deleted": 1, "scored": 2, "unreadable": 1}
    record = read_record(RunFolder(local_config.results, "night-3"))
    assert record is not None
    assert (record["counts"]["deleted"], record["already_scored"], record["listed"]) == (1, 3, 3)
    assert list_alarms(record["counts"], local_config) == []
    photo.write_bytes(data)
    assert [row[:2] for row in score(local_config, "night-5", mark_deleted=True)] == [("0.jpg", "scored")]


def test_what_came_into_the_table_while_the_archive_was_listed_is_not_deleted(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(local_config, "night-1")

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2020, 1, 1, tzinfo=UTC)

    (Path(local_config.archive.removeprefix("file://")) / "0.jpg").unlink()
    monkeypatch.setattr(preparation, "datetime", Clock)
    assert score(local_config, "night-2", mark_deleted=True) == []


def test_deletions_are_not_guessed_from_a_part_of_the_archive(local_config: ScoreConfig, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{local_config.archive}/0.jpg\n")
    for more, said in (
        ({"include": ["*.jpg"]}, "leave out --include"),
        ({"archive": f"file://{listed}"}, "is a list or an inventory: give the archive"),
    ):
        with pytest.raises(RequestError, match=said):
            score(local_config, "night-1", mark_deleted=True, **more)


@pytest.fixture
def killed(local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch) -> ScoreConfig:
    """A request after a run, night-1, that died when the first of its two slices was in the table."""
    real, calls = committer.publish_slice, []

    def die_at_the_second(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise JobError("killed")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(committer, "publish_slice", die_at_the_second)
    with pytest.raises(JobError, match="killed"):
        score(local_config, "night-1", slice_photos=2)
    return local_config


def test_a_killed_run_leaves_its_slices_to_the_next_run_of_any_id_and_its_staging_goes(
    killed: ScoreConfig, local_config: ScoreConfig
) -> None:
    assert [status for _, status, _ in score(local_config, "night-2")] == ["scored", "unreadable"]
    uris = read_rows(local_config.results, ["image_uri"])["image_uri"].to_pylist()
    assert len(uris) == len(set(uris)) == 4

    staging = RunFolder(local_config.results, "night-1").staging
    score(local_config, "night-3")
    assert list(storage.list_objects(staging)) != []
    for info in storage.list_objects(staging):
        os.utime(info.uri.removeprefix("file://"), (0, 0))
    score(local_config, "night-4")
    assert list(storage.list_objects(staging)) == []


def test_a_run_that_was_killed_and_not_continued_is_known_as_unfinished(
    killed: ScoreConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    score(killed, "night-2")
    capsys.readouterr()
    record = read_unfinished(RunFolder(killed.results, "night-1"))
    assert record is not None
    assert (record["status"], record["committed_slices"], record["slices"]) == ("unfinished", 1, 2)
    assert read_record(RunFolder(killed.results, "night-1")) is None
    assert run_table_command(["runs", "--results", killed.results, "--format", "json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    told = [(run["run_id"], run["status"], run["rows"], run["committed_slices"]) for run in runs]
    assert told == [("night-1", "unfinished", None, 1), ("night-2", "finished", 2, 1)]


def test_a_run_that_is_continued_is_not_unfinished_any_more(killed: ScoreConfig) -> None:
    score(killed, "night-1", slice_photos=2)
    assert read_unfinished(RunFolder(killed.results, "night-1")) is None
    record = read_record(RunFolder(killed.results, "night-1"))
    assert record is not None
    assert (record["status"], record["slices"]) == ("finished", 2)


def test_the_same_id_scores_all_that_is_left_when_its_staging_is_gone(killed: ScoreConfig) -> None:
    storage.delete_tree(RunFolder(killed.results, "night-1").staging)
    found = score(killed, "night-1", slice_photos=2)
    assert [status for _, status, _ in found] == ["scored", "scored", "scored", "unreadable"]
    assert score(killed, "night-2") == []


def test_photos_are_marked_as_deleted_by_the_same_id_again_when_its_staging_is_gone(killed: ScoreConfig) -> None:
    archive = Path(killed.archive.removeprefix("file://"))
    for name in ("0.jpg", "1.jpg"):
        storage.delete_tree(RunFolder(killed.results, "night-1").staging)
        (archive / name).unlink()
        score(killed, "night-1", mark_deleted=True)
        storage.delete(RunFolder(killed.results, "night-1").record)
    latest = read_latest(killed.results, ["image_uri", "status"]).to_pylist()
    assert [row["status"] for row in latest if row["image_uri"].endswith(("0.jpg", "1.jpg"))] == ["deleted", "deleted"]


@pytest.mark.parametrize(
    ("archive", "age_s", "warned"), [(None, 0, True), ("file:///elsewhere", 0, False), (None, 3600, False)]
)
def test_a_run_says_which_other_run_scores_the_same_photos(
    archive: str | None, age_s: int, warned: bool, local_config: ScoreConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunFolder(local_config.results, "night-0")
    request = local_config.model_copy(update={"archive": archive or local_config.archive})
    write_unfinished({"config": request.model_dump(mode="json")}, other)
    storage.write(other.lease, b"{}")
    then = datetime.now(UTC).timestamp() - age_s
    os.utime(other.lease.removeprefix("file://"), (then, then))
    score(local_config, "night-1")
    assert ("warning: run night-0 is under way over the same archive" in capsys.readouterr().err) == warned
