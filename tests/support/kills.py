"""What tests of killed processes share."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pytest

from jobs import storage
from jobs.results.known import read_rows
from jobs.scoring.run_folder import RunFolder

PHOTOS = 240
"""Photos of the archive that a killed job scores."""


Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], job: subprocess.Popen[str], *, timeout_s: float = 120) -> Found:
    """Calls ``look`` until it finds something; fails if the job ends first."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        if job.poll() is not None:
            pytest.fail(f"the job ended with {job.returncode} before it could be disturbed:\n{job.communicate()[0]}")
        time.sleep(0.02)  # the pace of looking, not a guess of how long something takes
    job.kill()
    return pytest.fail(f"nothing to disturb within {timeout_s} s")


def list_staged_files(results: str) -> list[str]:
    """Lists the files that the unfinished run ``night`` has committed."""
    place = RunFolder(results, "night").checkpoint
    return [
        info.uri for info in storage.list_objects(place) if info.uri.endswith(".parquet") and ".pending" not in info.uri
    ]


def assert_every_image_once(results: str) -> None:
    """Asserts that the run ``night`` published one row for each photo and left no staged files."""
    rows = read_rows(results, ["image_uri", "status"])
    assert Counter(rows["status"].to_pylist()) == {"scored": PHOTOS}
    assert len(set(rows["image_uri"].to_pylist())) == PHOTOS
    assert list(storage.list_objects(RunFolder(results, "night").staging)) == []
