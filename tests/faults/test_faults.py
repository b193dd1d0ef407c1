"""Processes that are killed mid-run: what comes out is every image once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import storage
from jobs.results.known import read_rows
from jobs.scoring.record import read_record, read_tables
from jobs.scoring.run_folder import RunFolder
from jobs.tables.schema import SCORES, STAGED
from tests.support.kills import (
    PHOTOS,
    assert_every_image_once,
    list_staged_files,
    list_workers,
    read_to_the_end,
    wait_for,
)


@pytest.fixture
def start(cluster: str, detectors: str, archive: str, bucket: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts the job as a user does, on the session's Ray."""
    argv = ["--archive", archive, "--detectors", detectors, "--results", f"{bucket}/results", "--run-id", "night"]
    argv += ["--scoring.batch-photos", "8", "--scoring.actors", "2"]
    jobs: list[subprocess.Popen[str]] = []

    def start_job() -> subprocess.Popen[str]:
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-m", "jobs.score", *argv],
                env=os.environ | {"RAY_ADDRESS": cluster},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.kill()
        job.communicate()


def test_a_rerun_after_the_driver_was_killed_keeps_what_was_scored(
    start: Callable[[], subprocess.Popen[str]], bucket: str
) -> None:
    results = f"{bucket}/results"
    job = start()
    wait_for(lambda: list_staged_files(results), job)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert read_record(RunFolder(results, "night")) is None
    kept = read_tables(_committed_rows(results), columns=["image_uri", "scored_at"], schema=STAGED).to_pylist()
    assert 0 < len(kept) < PHOTOS

    again = start()
    said = read_to_the_end(again)
    assert again.returncode == 0, said
    assert "continuing where an earlier try stopped" in said
    assert_every_image_once(results)
    published = read_rows(results, SCORES.names)
    scored_at = dict(zip(published["image_uri"].to_pylist(), published["scored_at"].to_pylist(), strict=True))
    assert {row["image_uri"]: row["scored_at"] for row in kept}.items() <= scored_at.items()


def _committed_rows(results: str) -> list[str]:
    """Row files whose checkpoint was committed: the file names share their beginning."""
    names = {Path(uri).stem for uri in list_staged_files(results)}
    rows = [info.uri for info in storage.list_objects(RunFolder(results, "night").rows)]
    return [uri for uri in rows if any(Path(uri).stem.startswith(name) for name in names)]


def test_a_run_whose_scoring_actor_is_killed_completes(
    start: Callable[[], subprocess.Popen[str]], cluster: str, bucket: str
) -> None:
    results = f"{bucket}/results"
    job = start()
    wait_for(lambda: list_staged_files(results), job)
    victim = wait_for(lambda: list_workers(cluster, "ScoreImages"), job)[0]
    os.kill(victim, signal.SIGKILL)
    said = read_to_the_end(job)
    assert job.returncode == 0, said
    assert_every_image_once(results)


_TOLD_TO_END = """
import os, signal, sys
from jobs.cli import run_command
from jobs.cluster.session import start_ray

def main(argv):
    start_ray()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("seconds until an alarm:", signal.alarm(0), flush=True)

run_command(main)
"""


def test_a_verb_that_is_told_to_end_takes_the_time_that_it_needs(cluster: str) -> None:
    """Ray's own handler of SIGTERM sets an alarm that aborts the process 3 s later, which a busy machine exceeds."""
    command = subprocess.run(
        [sys.executable, "-c", _TOLD_TO_END],
        env=os.environ | {"RAY_ADDRESS": cluster},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert command.stdout == "seconds until an alarm: 0\n"
    assert (command.returncode, command.stderr.splitlines()[-1].split(";")[0]) == (1, "interrupted")
