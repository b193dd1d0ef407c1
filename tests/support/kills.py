"""What tests of killed processes share."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import psutil
import pytest

from jobs import storage
from jobs.results.known import read_rows
from jobs.scoring.run_folder import RunFolder

PHOTOS = 240
"""Photos of the archive that a killed job scores."""


Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], job: subprocess.Popen[str], *, timeout_s: float = 240) -> Found:
    """Calls ``look`` until it finds something; fails with what the job said if the job ends first or time runs out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        if job.poll() is not None:
            pytest.fail(f"the job ended with {job.returncode} before it could be disturbed:\n{job.communicate()[0]}")
        time.sleep(0.02)  # the pace of looking, not a guess of how long something takes
    job.kill()
    return pytest.fail(f"nothing to disturb within {timeout_s} s:\n{job.communicate()[0]}")


def read_to_the_end(job: subprocess.Popen[str], *, timeout_s: float = 300) -> str:
    """Returns all that a job says until it ends; fails with what it said if it does not end in time."""
    try:
        return job.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        job.kill()
        return pytest.fail(f"the job did not end within {timeout_s} s:\n{job.communicate()[0]}")


def list_workers(cluster: str, *words: str) -> list[int]:
    """Lists the process ids of one cluster's workers by words of the title that Ray gives them.

    Args:
        cluster: the address of its control store: test processes run side by side, each with a Ray of its own, and a
            worker of the other's must not be killed.
        words: all of them stand in the title, such as the name of an actor's class.
    """
    found = []
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        if not title.startswith("ray::") or not all(word in title for word in words):
            continue
        try:
            raylet = process.parent()
            if raylet is not None and f"--gcs-address={cluster}" in raylet.cmdline():
                found.append(process.pid)
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return found


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
