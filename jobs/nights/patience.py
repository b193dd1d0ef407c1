"""Waiting for a head that does not answer: it may be starting again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from jobs.nights.head import Head, JobState, UnreachableHeadError

Answer = TypeVar("Answer")


class Clock:
    """The time, and waiting for it."""

    def now(self) -> float:
        """Returns seconds on a clock that only goes forward."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


class PatientHead:
    """A head that is asked again for a while where it does not answer; every call of a night goes through it."""

    def __init__(self, head: Head, *, timeout_s: float, pause_s: float, clock: Clock) -> None:
        """Takes the head, and how long and how often each call asks it."""
        self._head, self._timeout_s, self._pause_s, self._clock = head, timeout_s, pause_s, clock

    def read_state(self, submission_id: str) -> JobState | None:
        """See `Head`."""
        return self._ask(lambda: self._head.read_state(submission_id))

    def submit(self, submission_id: str, *, entrypoint: str, folder: Path | None) -> bool:
        """See `Head`."""
        return self._ask(lambda: self._head.submit(submission_id, entrypoint=entrypoint, folder=folder))

    def stop(self, submission_id: str) -> None:
        """See `Head`."""
        self._ask(lambda: self._head.stop(submission_id))

    def read_log(self, submission_id: str) -> str:
        """See `Head`."""
        return self._ask(lambda: self._head.read_log(submission_id))

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """Asks the head, for as long as it may be starting again.

        Raises:
            UnreachableHeadError: it does not answer in the time that it is given.
        """
        began, warned = self._clock.now(), False
        while True:
            try:
                return call()
            except UnreachableHeadError as error:
                if self._clock.now() - began > self._timeout_s:
                    raise
                if not warned:
                    say(f"warning: {error}; waiting up to {self._timeout_s / 60:g} minutes")
                    warned = True
                self._clock.sleep(self._pause_s)


def say(line: str) -> None:
    """Prints a line of the night with the time, for the log of a scheduler."""
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", flush=True)
