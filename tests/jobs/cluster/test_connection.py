"""A command joins the cluster of RAY_ADDRESS or starts one of its own, and says in one line what keeps it from both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from jobs.cluster import connection
from jobs.cluster.connection import connect
from jobs.errors import JobError, RequestError


@pytest.fixture
def init_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Settings of each `ray.init`, which starts nothing; without RAY_ADDRESS and without pauses."""
    calls: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection, "PROBE_PAUSE_S", 0)
    monkeypatch.setattr(ray, "init", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return calls


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Lets Ray fail to start; returns a list that grows by one with each try."""
    tries: list[int] = []

    def fail(**_: Any) -> None:
        tries.append(1)
        raise error

    monkeypatch.setattr(ray, "init", fail)
    return tries


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_command_of_its_own_never_looks_for_another_cluster(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    connect()
    assert [call["address"] for call in init_calls] == ["local"]
    assert init_calls[0]["num_cpus"] >= 4


def test_the_cluster_of_ray_address_is_joined_by_its_address(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(connection, "wait_for_listener", lambda address: None)
    connect()
    assert [call["address"] for call in init_calls] == ["10.0.0.1:6379"]
    assert "num_cpus" not in init_calls[0]


def test_a_cluster_that_is_gone_ends_the_command_after_a_few_tries(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # discard: nobody listens there
    with pytest.raises(JobError, match=r"^RAY_ADDRESS=127\.0\.0\.1:9: no Ray cluster answers there, tried 4 times"):
        connect()
    assert init_calls == []


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "head", "10.0.0.1:", "10.0.0.1:99999", "s3://a/b:1"])
def test_an_address_of_something_else_is_a_wrong_request(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RequestError, match="needs host:port of a Ray cluster"):
        connect()
    assert init_calls == []


def test_a_cluster_that_cannot_be_joined_is_not_replaced_by_a_local_one(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(connection, "wait_for_listener", lambda address: None)
    tries = fail_with(monkeypatch, ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"))
    with pytest.raises(JobError, match="cannot join a Ray cluster there: Failed to connect"):
        connect()
    assert len(tries) == 1


def test_a_ray_that_does_not_come_up_in_time_is_started_three_times_at_most(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = fail_with(monkeypatch, Exception("The current node timed out during startup. This could happen\nbecause"))
    with pytest.raises(JobError, match=r"^a local Ray did not start 3 times: The current node timed out[^\n]*$"):
        connect()
    assert len(tries) == 3


def test_a_start_that_failed_leaves_no_process_to_the_next(
    init_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    others: list[subprocess.Popen[bytes]] = []

    def start_and_fail(**_: Any) -> None:
        wait = [sys.executable, "-c", "input()"]
        started.append(subprocess.Popen([*wait, "site-packages/ray/core"], stdin=subprocess.PIPE))
        others.append(subprocess.Popen(wait, stdin=subprocess.PIPE))  # as another thread might
        raise Exception("timed out during startup")

    monkeypatch.setattr(ray, "init", start_and_fail)
    with pytest.raises(JobError, match="did not start"):
        connect()
    assert [psutil.pid_exists(process.pid) for process in started] == [False] * 3
    assert [process.poll() for process in others] == [None] * 3
    for process in others:
        process.communicate(b"\n")


@pytest.mark.slow  # a process that loads Ray
@pytest.mark.parametrize(("folder", "said"), [("x" * 100, "set RAY_TMPDIR to a short one"), ("file", "see RAY_TMPDIR")])
def test_a_folder_that_ray_cannot_use_is_named_in_one_line(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / "file").touch()
    script = (
        "from jobs.cli import run_command; from jobs.cluster.session import start_ray; "
        "run_command(lambda _: start_ray())"
    )
    environment = os.environ | {"RAY_ADDRESS": "local", "RAY_TMPDIR": str(tmp_path / folder)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
