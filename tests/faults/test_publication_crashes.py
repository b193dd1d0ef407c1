"""A process that dies while it publishes, and a disk that is full: the table shows a slice whole or not at all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import storage
from jobs.cluster.tally import Reported
from jobs.detectors import registry
from jobs.errors import EXIT_FAILED, JobError
from jobs.results import commit as commits
from jobs.results.known import read_rows
from jobs.scoring import run as scoring
from jobs.scoring import staging
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.training.config import TrainConfig
from tests.support.training import request_tiny_training, train_plainly

PHOTOS = 96
"""In the drawn archive's data."""
SLICE = 40


class Crash(BaseException):
    """The process dies here: nothing of ours may catch it."""


@pytest.fixture(scope="module")
def registered(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with a champion of category insulator, made without Ray."""
    place = tmp_path_factory.mktemp("plain")
    training = TrainConfig.model_validate(request_tiny_training(drawn, place) | {"optimizer": {"epochs": 1}})
    detector_id, _, _ = train_plainly(training, place / "artifact")
    uri = f"file://{place}/registry"
    registry.put(uri, "insulator", folder=place / "artifact")
    registry.set_alias(uri, "insulator", alias="champion", detector_id=detector_id)
    return uri


@pytest.fixture(autouse=True)
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is scored, so every row is published as ``failed: lost``: what is tested comes after."""
    monkeypatch.setattr(staging, "score_into_staging", lambda *_, **__: ({}, Reported()))


def config(drawn: Path, detectors: str, results: str) -> ScoreConfig:
    return ScoreConfig.model_validate(
        {
            "archive": str(drawn / "data"),
            "detectors": detectors,
            "results": results,
            "run_id": "night",
            "max_error_rate": 1.0,
            "local": False,
            "slice_photos": SLICE,
        }
    )


def crash(monkeypatch: pytest.MonkeyPatch, function: str, *, part: str, when: str) -> None:
    """Lets the process die before or after a call of jobs.storage, or a commit, that has ``part`` in its arguments."""
    module: Any = commits if function == "try_commit" else storage
    real: Callable[..., object] = getattr(module, function)

    def dying(*arguments: object, **options: object) -> object:
        is_it = part in str(arguments)
        if is_it and when == "before":
            raise Crash("crashed here")
        result = real(*arguments, **options)
        if is_it:
            raise Crash("crashed here")
        return result

    monkeypatch.setattr(module, function, dying)


CRASHES = [
    ("upload", "night-00000", "before", 0),
    ("upload", "night-00000", "after", 0),
    ("try_commit", "number=0", "before", 0),
    ("try_commit", "number=0", "after", SLICE),
    ("upload", "night-00001", "after", SLICE),
    ("try_commit", "number=1", "after", 2 * SLICE),
    ("try_commit", "number=2", "before", 2 * SLICE),
    ("write", "runs/night.json", "before", PHOTOS),
    ("write", "runs/night.json", "after", PHOTOS),
    ("delete_tree", "staging/night", "before", PHOTOS),
]


def test_a_crash_at_any_point_of_publication_shows_whole_slices_and_each_photo_once(
    drawn: Path, registered: str, bucket: str
) -> None:
    """One run that dies at one point after the other: each try goes on from what the last one left."""
    request = config(drawn, registered, f"{bucket}/results")
    for function, part, when, rows in CRASHES:
        with pytest.MonkeyPatch.context() as patch:
            crash(patch, function, part=part, when=when)
            with pytest.raises(Crash, match="crashed here"):
                scoring.score_archive(request)
        is_done = (function, when) in [("write", "after"), ("delete_tree", "before")]
        assert (read_record(RunFolder(request.results, "night")) is not None) == is_done
        assert_each_photo_once(request.results, rows)
    assert scoring.score_archive(request) == 0
    assert_each_photo_once(request.results, PHOTOS)
    assert list(storage.list_objects(RunFolder(request.results, "night").staging)) == []


def assert_each_photo_once(results: str, photos: int) -> None:
    """Asserts how many photos have a row, and that none has two."""
    found = Counter(read_rows(results, ["image_uri"])["image_uri"].to_pylist())
    assert (len(found), set(found.values()) - {1}) == (photos, set())


@pytest.mark.parametrize("free_bytes", [0, 8192, 24_576])
def test_a_disk_that_is_full_at_any_point_ends_the_run_with_one_line_and_it_can_go_on(
    free_bytes: int, drawn: Path, registered: str, small_disk: Path
) -> None:
    results, filler = f"file://{small_disk}", small_disk / "filler"
    request = config(drawn, registered, results)
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - free_bytes))
    with pytest.raises(JobError, match=r"No space left on device|no room is left") as caught:
        scoring.score_archive(request)
    assert caught.value.exit_code == EXIT_FAILED
    assert "\n" not in str(caught.value)
    assert read_record(RunFolder(results, "night")) is None
    filler.unlink()
    assert scoring.score_archive(request) == 0
    assert read_rows(results, ["image_uri"]).num_rows == PHOTOS
