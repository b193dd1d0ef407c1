"""Runs of slices that are killed, run beside each other, or cut off: each photo is in the table exactly once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from jobs import storage
from jobs.results.delta import open_table
from jobs.results.known import read_latest
from tests.support.kills import read_to_the_end
from tests.support.training import register_untrained

PHOTOS, SLICE = 60, 6
KILLS = 30
"""Runs that die; a fast machine takes ten minutes."""
NIGHTS = 5


@pytest.fixture
def places(drawn: Path, bucket: str, tmp_path: Path) -> list[str]:
    """Flags of a run over small photos on the S3 server, with an untrained detector, without Ray."""
    photos = sorted((drawn / "data").rglob("*.jpg"))
    for number in range(PHOTOS):
        storage.write(f"{bucket}/archive/pole/{number:04d}.jpg", photos[number % len(photos)].read_bytes())
    register_untrained(f"file://{tmp_path}/registry", "pole", folder=tmp_path / "artifact")
    flags = ["--archive", f"{bucket}/archive", "--detectors", str(tmp_path / "registry")]
    return [*flags, "--results", f"{bucket}/results", "--slice-photos", str(SLICE), "--local"]


def start(places: list[str], run_id: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "jobs.score", *places, "--run-id", run_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_slices(job: subprocess.Popen[str], count: int) -> None:
    """Returns when a run has committed ``count`` slices, or has ended."""
    assert job.stdout is not None
    seen = 0
    for line in job.stdout:
        seen += line.startswith("slice ")
        if seen == count:
            return


def count_photos(results: str) -> int:
    """Counts the photos in the table; fails if one has two rows, for a plain reader or for the latest state."""
    table = open_table(results)
    if table is None:
        return 0
    found = Counter(table.to_pandas(columns=["image_uri"])["image_uri"])
    assert set(found.values()) <= {1}
    latest = read_latest(results, ["image_uri", "status"])
    assert set(latest["status"].to_pylist()) <= {"scored"}
    assert len(latest) >= len(found)
    return len(found)


def finish(places: list[str], results: str) -> None:
    """Runs once to the end, and once more: nothing is left to score then."""
    for run_id in ("last", "none"):
        job = start(places, run_id)
        said = read_to_the_end(job, timeout_s=300)
        assert job.returncode == 0, said
    assert f"{PHOTOS} objects listed, {PHOTOS} known from earlier runs" in said
    assert count_photos(results) == PHOTOS
    parquet = [info.uri for info in storage.list_objects(f"{results}/scores") if info.uri.endswith(".parquet")]
    table = open_table(results)
    assert table is not None
    assert len(parquet) == len(table.file_uris())  # so that a reader of the folder counts right, too


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_runs_that_are_killed_at_random_moments_lose_a_slice_at_most(places: list[str], bucket: str) -> None:
    results, chance, before = f"{bucket}/results", random.Random(1), 0
    for number in range(KILLS):
        job = start(places, f"night-{number // 2}")  # every second one continues a run that was killed
        wait_for_slices(job, chance.randrange(0, 2))
        threading.Event().wait(chance.uniform(0, 1.0))  # a random moment, not a guess of a duration
        job.kill()
        job.communicate()
        now = count_photos(results)
        assert now >= before
        before = now
    finish(places, results)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_two_runs_at_once_give_each_photo_one_row_at_every_moment(places: list[str], bucket: str) -> None:
    results = f"{bucket}/results"
    jobs = [start(places, run_id) for run_id in ("left", "right")]
    while any(job.poll() is None for job in jobs):
        count_photos(results)
    said = [job.communicate()[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    finish(places, results)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_an_archive_of_five_nights_is_done_after_five_nights(places: list[str], bucket: str) -> None:
    """A deadline ends every run, each with an id of its own, once two slices are in the table."""
    results = f"{bucket}/results"
    for night in range(NIGHTS):
        job = start(places, f"night-{night}")
        wait_for_slices(job, 2)
        job.send_signal(signal.SIGTERM)
        said = read_to_the_end(job, timeout_s=120)
        assert job.returncode in (0, 1), said
        assert count_photos(results) >= min(PHOTOS, 2 * SLICE * (night + 1))
    assert count_photos(results) == PHOTOS
    finish(places, results)
