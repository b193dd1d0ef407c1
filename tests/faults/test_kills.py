"""Every process of a run is killed at a random moment: what comes out, after a rerun at most, is every image once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from jobs import storage
from jobs.results.known import read_rows
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from tests.support.kills import (
    PHOTOS,
    assert_every_image_once,
    assert_it_ends,
    list_processes,
    list_staged_files,
    list_workers,
    read_to_the_end,
    wait_for,
)
from tests.support.servers.nodes import serve_two_nodes

MOST_RERUNS = 3
LATEST_S = 4.0
"""Kills come within so many seconds of the first staged file."""
BEFORE_STAGING = ("decode worker",)
"""Victims whose work may be done by then: so few photos are decoded ahead. They are killed once they are there."""


@pytest.fixture
def nodes(bucket: str, detectors: str) -> Iterator[Any]:
    """A Ray cluster of two nodes of its own, which may lose one."""
    with serve_two_nodes() as running:
        yield running


def started(cluster: str, archive: str, detectors: str, results: str) -> subprocess.Popen[str]:
    """The job as a user starts it."""
    argv = ["--archive", archive, "--detectors", detectors, "--results", results, "--run-id", "night"]
    argv += ["--scoring.batch-photos", "8", "--scoring.actors", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.score", *argv],
        env=os.environ | {"RAY_ADDRESS": cluster},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Reader:
    """An analyst who follows run records all the while, and notes how many rows the table shows."""

    def __init__(self, results: str) -> None:
        self._results, self.seen, self._stop = results, set[int](), threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.wait(0.2):
            self.seen.add(len(read_rows(self._results, ["image_uri"])))


VICTIMS: dict[str, Callable[[Any, subprocess.Popen[str]], list[int]]] = {
    "scoring actor": lambda nodes, job: list_workers(nodes.address, "ScoreImages"),
    "decode worker": lambda nodes, job: (
        list_workers(nodes.address, "MapBatches(__call__)") or list_workers(nodes.address, "FetchDecode")
    ),
    "decoder nursery": lambda nodes, job: list_processes("jobs.decoding.decoder_child", parent="ray::"),
    "decoder": lambda nodes, job: list_processes("jobs.decoding.decoder_child", parent="jobs.decoding.decoder_child"),
    "driver": lambda nodes, job: [job.pid],
    "raylet of the other node": lambda nodes, job: [nodes.spare.all_processes["raylet"][0].process.pid],
    "raylet of the driver": lambda nodes, job: [nodes.head_node.all_processes["raylet"][0].process.pid],
}


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("victim", [*VICTIMS, "other node"])
def test_whatever_is_killed_every_image_comes_out_once(
    victim: str, seed: int, nodes: Any, archive: str, detectors: str, bucket: str
) -> None:
    results, chance = f"{bucket}/results", random.Random(f"{victim} {seed}")
    with Reader(results) as reader:
        job = started(nodes.address, archive, detectors, results)
        if victim not in BEFORE_STAGING:
            wait_for(lambda: list_staged_files(results), job)
            threading.Event().wait(chance.uniform(0, LATEST_S))  # a random moment, not a guess of a duration
        if victim == "other node":
            nodes.remove_node(nodes.spare, allow_graceful=False)
        else:
            found = wait_for(lambda: VICTIMS[victim](nodes, job), job)
            os.kill(chance.choice(sorted(found)), signal.SIGKILL)
        said = read_to_the_end(job, timeout_s=600)
        address, reruns = nodes.address, 0
        while job.returncode != 0 and reruns < MOST_RERUNS:
            assert job.returncode in (1, -signal.SIGKILL), said
            if victim == "raylet of the driver":
                address = "local"  # the cluster's head is gone; a rerun may be anywhere
            job, reruns = started(address, archive, detectors, results), reruns + 1
            said = read_to_the_end(job, timeout_s=600)
    assert job.returncode == 0, said
    print(f"{victim}: {reruns} reruns")
    assert_every_image_once(results)
    assert reader.seen <= {0, PHOTOS}


@pytest.mark.nightly
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_says_that_it_can_go_on_and_leaves_nothing_running(
    stop: signal.Signals, archive: str, detectors: str, bucket: str
) -> None:
    results = f"{bucket}/results"
    job = started("local", archive, detectors, results)
    wait_for(lambda: list_staged_files(results), job)
    children = psutil.Process(job.pid).children(recursive=True)
    job.send_signal(stop)
    said = read_to_the_end(job, timeout_s=120)
    assert job.returncode == 1, said
    assert said.splitlines()[-1] == "interrupted; the same command continues where this one stopped"
    assert "Traceback" not in said
    assert [info.uri for info in storage.list_objects(results) if info.uri.endswith("lease.json")] == []
    for child in children:
        assert_it_ends(child.pid)
    assert read_record(RunFolder(results, "night")) is None
    again = started("local", archive, detectors, results)
    said = read_to_the_end(again, timeout_s=300)
    assert again.returncode == 0, said
    assert "continuing where an earlier try stopped" in said
    assert_every_image_once(results)


@pytest.mark.nightly
def test_a_second_run_with_the_same_id_is_refused_and_does_no_harm(
    cluster: str, archive: str, detectors: str, bucket: str
) -> None:
    results = f"{bucket}/results"
    first = started(cluster, archive, detectors, results)
    wait_for(lambda: list(storage.list_objects(RunFolder(results, "night").staging)), first)
    second = started(cluster, archive, detectors, results)
    said = read_to_the_end(second, timeout_s=120)
    assert second.returncode == 2, said
    assert f"process {first.pid} on " in said.splitlines()[-1]
    assert "take a new --run-id" in said.splitlines()[-1]
    said = read_to_the_end(first, timeout_s=300)
    assert first.returncode == 0, said
    assert_every_image_once(results)
