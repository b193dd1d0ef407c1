"""jobs.nightly on a real head: a night that succeeds, one that is stopped, a head that starts again, a bad request."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobSubmissionClient

from jobs.nights.head import RayHead
from jobs.results.known import read_rows
from tests.support.servers.heads import Head, serve_head

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with serve_head() as node:
        yield node


class Scorer:
    """A scheduler's call of the command, over one archive."""

    def __init__(self, head: Head, folder: Path, *, archive: str, detectors: str) -> None:
        self.results, self._head, self._file = folder / "results", head, folder / "score.yaml"
        request = {"archive": archive, "detectors": detectors, "results": str(self.results), "max_error_rate": 1.0}
        request |= {"scoring": {"actors": 1}, "slice_photos": 10}
        self._file.write_text(yaml.safe_dump(request))

    def start(self, name: str, *flags: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "jobs.nightly", "--head", self._head.address, "--score-config", str(self._file)]
        argv += [
            "--name",
            name,
            "--night",
            "2026-11-29",
            "--python",
            sys.executable,
            "--poll-s",
            "0.5",
            "--pause-s",
            "5",
            *flags,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | ENVIRONMENT
        return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, name: str, *flags: str) -> tuple[int, str]:
        return finish(self.start(name, *flags))


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=280)
    return process.returncode, said


def wait_until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if line in said:
            return
    pytest.fail(f"the command ended without {line!r}")


@pytest.fixture
def scorer(head: Head, detectors: str, drawn: Path, tmp_path: Path) -> Scorer:
    return Scorer(head, tmp_path, archive=str(drawn / "archive"), detectors=detectors)


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_a_night_ends_with_the_summary_and_called_again_it_runs_nothing(scorer: Scorer) -> None:
    code, said = scorer.run("whole", "--upload-code")
    assert code == 0, said
    assert "run whole-2026-11-29: 36 scored, 5 unreadable" in said
    assert len(read_rows(f"file://{scorer.results}", ["image_uri"])) == 41
    code, said = scorer.run("whole", "--upload-code")
    assert code == 0, said
    assert "whole-2026-11-29-1: ended before" in said


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_a_job_that_somebody_stops_is_no_success_and_is_continued(head: Head, scorer: Scorer) -> None:
    night = scorer.start("stopped", "--upload-code")
    wait_until(night, "stopped-2026-11-29-1: running")
    JobSubmissionClient(head.address).stop_job("stopped-2026-11-29-1")
    code, said = finish(night)
    assert code == 0, said
    assert "stopped-2026-11-29-1: stopped" in said
    assert "stopped-2026-11-29-2: succeeded" in said
    assert len(read_rows(f"file://{scorer.results}", ["image_uri"])) == 41


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_a_bad_request_is_not_tried_again_and_a_lost_python_is_named(scorer: Scorer) -> None:
    code, said = scorer.run("bad", "--upload-code", "--python", "/no/python")
    assert code == 1, said
    assert "/no/python did not run there" in said
    scorer._file.write_text(scorer._file.read_text().replace("archive: ", "archive: /nowhere"))
    code, said = scorer.run("bad", "--upload-code")
    assert code == 2, said
    assert "bad-2026-11-29-1: failed with exit code 2" in said
    assert "bad-2026-11-29-2" not in said


@pytest.mark.docs
@pytest.mark.timeout(600)
def test_a_head_that_is_started_again_in_between_gets_the_night_once_more(head: Head, scorer: Scorer) -> None:
    night = scorer.start("restarted", "--upload-code")
    wait_until(night, "restarted-2026-11-29-1: running")
    head.stop()
    head.start()
    code, said = finish(night)
    assert code == 0, said
    assert "the head has lost it: it was started again" in said
    assert "restarted-2026-11-29-2: succeeded" in said
    assert len(read_rows(f"file://{scorer.results}", ["image_uri"])) == 41


@pytest.mark.docs
def test_a_taken_id_is_seen_as_such_and_an_unknown_one_as_none(head: Head) -> None:
    asked = RayHead(head.address)
    assert asked.read_state("nobody") is None
    assert asked.submit("taken", entrypoint="true", folder=None)
    assert not asked.submit("taken", entrypoint="true", folder=None)
    deadline = time.monotonic() + 60
    while (state := asked.read_state("taken")) is None or not state.has_ended:
        assert time.monotonic() < deadline
        time.sleep(0.2)  # the pace of asking
    assert (state.status, state.exit_code) == ("SUCCEEDED", 0)
