"""What tests of killed processes share."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from jobs import storage
from jobs.results.known import read_rows
from jobs.scoring.run_folder import RunFolder

PHOTOS = 240
"""Photos of the archive that a killed job scores."""

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], *, ended: Callable[[], object], timeout_s: float = 240) -> Found:
    """Calls ``look`` until it finds something; fails if ``ended`` tells first that nothing will come, or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        if ended():
            pytest.fail("it ended before it could be disturbed")
        time.sleep(0.02)  # the pace of looking, not a guess of how long something takes
    return pytest.fail(f"nothing to disturb within {timeout_s} s")


def wait_for(look: Callable[[], Found], job: subprocess.Popen[str], *, timeout_s: float = 240) -> Found:
    """Calls ``look`` until it finds something; fails with what the job said if the job ends first or time is up."""
    try:
        return wait_until(look, ended=lambda: job.poll() is not None, timeout_s=timeout_s)
    except pytest.fail.Exception as failure:
        job.kill()
        said = job.communicate()[0]
        return pytest.fail(f"{failure}, exit code {job.returncode}:\n{said}")


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
    # The space ends the address: one port can begin as another does.
    return list_processes("ray::", *words, parent=f"--gcs-address={cluster} ")


def list_processes(*words: str, parent: str = "") -> list[int]:
    """Lists process ids by words that all stand in the command line, and by one that stands in the parent's."""
    found = []
    for process in psutil.process_iter():
        try:
            title = read_title(process)
            if all(word in title for word in words) and parent in read_title(process.parent()):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or is another user's
            continue
    return found


def read_title(process: psutil.Process | None) -> str:
    """Reads the command line of a process, or the title that it gave itself, with a space behind each word."""
    return "".join(f"{word} " for word in process.cmdline()) if process is not None else ""


def assert_it_ends(pid: int) -> None:
    """Waits for the end of a process that is no child of ours; fails after a minute."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(handle, "rb", buffering=0):
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert select.select([handle], [], [], 60)[0], f"process {pid} is still there: {title!r}"


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
