"""A head written by hand for the tests of nights, which refuses what Ray's refuses, and a clock that does not wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.nights.cluster_check import MARK, PACKAGE
from jobs.nights.head import JobState
from jobs.nights.patience import Clock
from model.versions import read_versions

FIELDS = "archive: s3://archive/photos\ndetectors: s3://models\nresults: s3://results\n"
COMMAND = (
    "python -m jobs.score --config score.yaml --run-id nightly-2026-11-29 --archive s3://archive/photos "
    "--detectors s3://models --results s3://results"
)
DONE, ALARM, BAD = JobState("SUCCEEDED", 0), JobState("FAILED", 3), JobState("FAILED", 2)
FAILED, STOPPED, RUNNING = JobState("FAILED", 1, "exit code 1"), JobState("STOPPED"), JobState("RUNNING")


class FakeClock(Clock):
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class FakeHead:
    """A head whose scoring jobs go through the states that a test gives, one a look; the last one stays."""

    def __init__(self, *runs: list[JobState | Exception | None]) -> None:
        self.runs: Iterator[list[JobState | Exception | None]] = iter(runs)
        self.jobs: dict[str, list[JobState | Exception | None]] = {}
        self.logs: dict[str, str] = {}
        self.stopped: list[str] = []
        self.submitted: list[str] = []
        self.sent: dict[str, str] = {}
        self.answer: dict[str, Any] = {
            "python": [3, 11, 7],
            "ray": read_versions()["ray"],
            "package": read_versions()[PACKAGE],
            "missing": [],
        }

    def read_state(self, submission_id: str) -> JobState | None:
        states = self.jobs.get(submission_id)
        if states is None:
            return None
        state = states.pop(0) if len(states) > 1 else states[0]
        if isinstance(state, Exception):
            raise state
        return state

    def submit(self, submission_id: str, *, entrypoint: str, folder: Path | None) -> bool:
        if submission_id in self.jobs:
            return False
        if "-check-" in submission_id:
            self.jobs[submission_id] = [DONE]
            self.logs[submission_id] = f"some warning\n{MARK}{json.dumps(self.answer)}\n"
            return True
        assert folder is not None
        self.sent[submission_id] = entrypoint + "\n" + (folder / "score.yaml").read_text()
        self.submitted.append(submission_id)
        self.jobs[submission_id] = next(self.runs)
        return True

    def stop(self, submission_id: str) -> None:
        self.stopped.append(submission_id)

    def read_log(self, submission_id: str) -> str:
        return self.logs.get(submission_id, "run nightly: 36 scored\nerror: the disk is full\n")
