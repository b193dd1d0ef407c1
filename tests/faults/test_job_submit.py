"""`ray job submit`, as the README shows it, on a head node with a dashboard of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from jobs.results.known import read_rows
from tests.support.detectors import TINY
from tests.support.places import ROOT
from tuning.trials.records import load_records

RAY = str(Path(sys.executable).parent / "ray")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Head:
    """Where a head node answers: its dashboard, and its metrics for Prometheus."""

    address: str
    metrics: str


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head node, which ends with its own process."""
    dashboard, gcs, agent, metrics = _free_port(), _free_port(), _free_port(), _free_port()
    argv = [RAY, "start", "--head", "--block", "--num-cpus", "8", "--object-store-memory", "200000000"]
    argv += ["--port", str(gcs), "--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    argv += ["--metrics-export-port", str(metrics)]
    argv += ["--temp-dir", str(tmp_path_factory.mktemp("r", numbered=True))[:60], "--disable-usage-stats"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_ADDRESS"))}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_metrics_report_interval_ms": "500"}
    node = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_until_it_answers(f"{address}/api/version", node)
        yield Head(address, f"http://127.0.0.1:{metrics}/metrics")
    finally:
        node.terminate()
        node.communicate(timeout=60)


def _wait_until_it_answers(url: str, node: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if node.poll() is not None:
                pytest.fail(f"the head node ended: {node.communicate()[0]}")
            time.sleep(0.2)  # the pace of asking
    pytest.fail("the head node's dashboard did not answer within 90 s")


@pytest.mark.docs
@pytest.mark.timeout(400)
def test_a_scoring_run_submitted_as_a_job_publishes_and_its_id_is_taken(
    detectors: str, drawn: Path, tmp_path: Path, head: Head
) -> None:
    results = tmp_path / "results"
    flags = ["--archive", str(drawn / "archive"), "--detectors", detectors, "--results", str(results)]
    flags += ["--run-id", "nightly", "--max-error-rate", "1", "--scoring.actors", "1"]
    submit = [RAY, "job", "submit", "--address", head.address, "--submission-id", "nightly", "--working-dir", str(ROOT)]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    job = [*submit, "--", sys.executable, "-m", "jobs.score", *flags]
    done = subprocess.run(job, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run nightly: 36 scored, 5 unreadable" in done.stdout
    for noise in ("RayDeprecationWarning", "Progress bars disabled", "number of concurrent"):
        assert noise not in done.stdout, "the job's log warns of what an operator cannot change"
    assert len(read_rows(f"file://{results}", ["image_uri"])) == 41
    metrics = _metrics(head, run_id="nightly")
    assert metrics["photos_total", "scored"] == 36
    assert metrics["photos_total", "unreadable"] == 5
    assert metrics["detector_loads_total", None] == 1
    assert all(metrics[f"{name}_total", None] > 0 for name in ("fetched_bytes", "decode_s", "score_s"))
    again = subprocess.run(job, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert again.returncode != 0
    assert "nightly" in again.stdout + again.stderr


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_a_search_submitted_as_a_job_goes_on_under_another_id(drawn: Path, tmp_path: Path, head: Head) -> None:
    """Three trials, then two more: Ray refuses an id twice, and the records know what is done."""
    results = tmp_path / "results"
    space = {"image_size": 128, "scales": 2, "views": 1, "flow_hidden_width": 32, "flow_blocks": 2, "pretext_steps": 2}
    (tmp_path / "search.yaml").write_text(
        yaml.safe_dump({"detector": TINY, "optimizer": {"epochs": 2}, "space": space, "validation_share": 0.5})
    )
    flags = ["--config", str(tmp_path / "search.yaml"), "--data", str(drawn / "data"), "--category", "insulator"]
    flags += ["--results", str(results), "--no-final", "--finalists", "1", "--finalist-seeds", "1", "--concurrent", "2"]
    said = []
    for name, trials in (("search-1", "3"), ("search-2", "5")):
        submit = [RAY, "job", "submit", "--address", head.address, "--submission-id", name, "--working-dir", str(ROOT)]
        job = [*submit, "--", sys.executable, "-m", "tuning.search", *flags, "--trials", trials]
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(job, capture_output=True, text=True, check=False, env=environment, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert "search of 5 trials, 3 of them finished before" in said[1]
    assert list(load_records(f"file://{results}")) == list(range(5))
    assert (results / "index.html").exists()


def _metrics(head: Head, *, run_id: str) -> dict[tuple[str, str | None], float]:
    """Our counters of a run at the endpoint that Prometheus reads, by name and status."""
    found: dict[tuple[str, str | None], float] = {}
    with urllib.request.urlopen(head.metrics, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    for line in lines:
        match = re.match(r"ray_attentdiffernet_(\w+)\{(.*)\} (\S+)", line)
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2])) if match else {}
        if match and labels.get("run_id") == run_id:
            key = match[1], labels.get("status")
            found[key] = found.get(key, 0) + float(match[3])
    return found
