"""`ray job submit`, as the README shows it, on a head node with a dashboard of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobs.config import DEFAULT_KEY_PATTERN
from jobs.results.known import read_rows
from tests.support.detectors import TINY
from tests.support.places import ROOT
from tests.support.servers.heads import RAY, Head, serve_head
from tuning.trials.records import load_records


@pytest.fixture
def head() -> Iterator[Head]:
    """A head node, which ends with its own process."""
    with serve_head() as node:
        yield node


@pytest.mark.docs
@pytest.mark.timeout(400)
def test_a_scoring_run_submitted_as_a_job_publishes_and_its_id_is_taken(
    detectors: str, drawn: Path, tmp_path: Path, head: Head
) -> None:
    results = tmp_path / "results"
    flags = ["--config", "infra/runs/score.yaml"]  # as the docs submit it: a path in what was uploaded
    flags += ["--archive", str(drawn / "archive"), "--detectors", detectors, "--results", str(results)]
    flags += ["--run-id", "nightly", "--max-error-rate", "1", "--scoring.actors", "1", "--false-alarm-rate", "0.05"]
    flags += ["--key-pattern", DEFAULT_KEY_PATTERN, "--log-format", "text"]
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
