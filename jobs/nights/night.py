"""One night: submit the scoring run, wait for it, go on where it was cut off, and say how it ended."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TypeVar

import jobs
import model
from jobs.errors import EXIT_BAD_REQUEST, EXIT_DONE, EXIT_FAILED, EXIT_TOO_MANY_UNREADABLE, JobError, RequestError
from jobs.nights.cluster_check import check_cluster
from jobs.nights.config import NightlyConfig
from jobs.nights.head import Head, JobState, RayHead
from jobs.nights.patience import Clock, PatientHead, say
from jobs.nights.request import is_same_request, write_request

Answer = TypeVar("Answer")
LOG_LINES = 40
"""Last lines of a run's log that are shown when it has ended: its summary."""
ANSWERED = {EXIT_DONE, EXIT_BAD_REQUEST, EXIT_TOO_MANY_UNREADABLE}
"""Exit codes of a scoring run that another try would not change."""


class OutOfTimeError(JobError):
    """The night's hours are over."""


def run_night(config: NightlyConfig) -> int:
    """Runs the night on the cluster that the request names and returns the exit code.

    Raises:
        RequestError: the request is wrong, or the cluster lacks something.
        JobError: the head does not answer, or no try came to an end.
    """
    packages = tuple(Path(str(package.__file__)).parent for package in (jobs, model)) if config.upload_code else ()
    return Night(config, RayHead(config.head, packages=packages), clock=Clock()).run()


class Night:
    """The tries of one night."""

    def __init__(self, config: NightlyConfig, head: Head, *, clock: Clock) -> None:
        """The hours of the request count from here."""
        self._config, self._clock = config, clock
        self._head = PatientHead(head, timeout_s=config.head_timeout_min * 60, pause_s=config.poll_s, clock=clock)
        self._ends_at = clock.now() + config.hours * 3600 if config.hours is not None else None

    def run(self) -> int:
        """Runs the night and returns the exit code.

        Raises:
            RequestError: the request is wrong, or the cluster lacks something.
            JobError: the head does not answer, or no try came to an end.
        """
        with tempfile.TemporaryDirectory() as folder:
            entrypoint = write_request(self._config, Path(folder))
            try:
                check_cluster(self._head, self._config, wait=self._wait)
                return self._try_until_answered(entrypoint, Path(folder))
            except OutOfTimeError as error:
                say(str(error))
                return EXIT_FAILED

    def _try_until_answered(self, entrypoint: str, folder: Path) -> int:
        """Submits try after try. One that runs already is waited for; those that failed before are not counted.

        Raises:
            RequestError: the night's name is another archive's.
            JobError: no try came to an end.
        """
        number, left, reason = 0, self._config.tries, "none was submitted"
        while left:
            number += 1
            submission_id = f"{self._config.run_id}-{number}"
            known = self._head.read_state(submission_id)
            if known is not None and known.has_ended and judge(known) in (None, EXIT_BAD_REQUEST):
                continue
            if known is None:
                self._pause(tried=self._config.tries - left)
                self._check_hours(f"{submission_id} was not submitted")
                left -= 1
                self._submit(submission_id, entrypoint, folder)
            else:
                self._check_name(known, entrypoint)
                say(f"{submission_id}: {'ended before' if known.has_ended else 'runs already: waiting for it'}")
            state = self._wait(submission_id)
            code = judge(state) if state else None
            if state:
                reason = self._show_end(submission_id, state)
            else:
                reason = "the head has lost it: it was started again"
                say(f"{submission_id}: {reason}")
            if code is not None:
                return code
        raise JobError(f"{self._config.run_id} did not end in {self._config.tries} tries, the last: {reason}")

    def _pause(self, *, tried: int) -> None:
        """Waits before another try, within the night's hours."""
        seconds = self._config.pause_s * 2 ** (tried - 1) if tried else 0.0
        if self._ends_at is not None:
            seconds = min(seconds, max(0.0, self._ends_at - self._clock.now()))
        self._clock.sleep(seconds)

    def _check_hours(self, what: str) -> None:
        """Raises OutOfTimeError where the hours are over: a run that starts now would be stopped at once."""
        if self._ends_at is not None and self._clock.now() >= self._ends_at:
            raise OutOfTimeError(f"{what}: the {self._config.hours:g} hours are over; {self._explain_rest()}")

    def _explain_rest(self) -> str:
        return f"what {self._config.run_id} has committed is in the table, and the next night goes on from there"

    def _check_name(self, known: JobState, entrypoint: str) -> None:
        """Raises RequestError where a job of this night scores something else: two archives with one name."""
        if known.entrypoint and not is_same_request(known.entrypoint, entrypoint):
            raise RequestError(
                f"{self._config.run_id} is another request's on this head ({known.entrypoint}): give each archive a "
                "--name of its own"
            )

    def _submit(self, submission_id: str, entrypoint: str, folder: Path) -> None:
        mine = self._head.submit(submission_id, entrypoint=entrypoint, folder=folder)
        if not mine and (known := self._head.read_state(submission_id)) is not None:
            self._check_name(known, entrypoint)
        say(f"{submission_id}: {'submitted' if mine else 'is there already: waiting for it'}")

    def _wait(self, submission_id: str) -> JobState | None:
        """Waits for the end of a job; None where the head does not know it any more.

        Raises:
            OutOfTimeError: the night is over; the job was asked to stop.
        """
        shown = ""
        while True:
            state = self._head.read_state(submission_id)
            if state is None or state.has_ended:
                return state
            if state.status != shown:
                shown = state.status
                say(f"{submission_id}: {shown.lower()}")
            if self._ends_at is not None and self._clock.now() >= self._ends_at:
                self._head.stop(submission_id)
                raise OutOfTimeError(
                    f"{submission_id}: stopped after {self._config.hours:g} hours; {self._explain_rest()}"
                )
            left_s = math.inf if self._ends_at is None else max(0.0, self._ends_at - self._clock.now())
            self._clock.sleep(min(self._config.poll_s, left_s))

    def _show_end(self, submission_id: str, state: JobState) -> str:
        """Shows the end of a job's log; returns why it ended, as one line."""
        lines = self._head.read_log(submission_id).splitlines()
        errors = [line for line in lines if line.startswith(("error:", "alarm:", "interrupted"))]
        print("\n".join(f"  {line}" for line in lines[-LOG_LINES:]), flush=True)
        ended = state.status.lower() + ("" if state.exit_code is None else f" with exit code {state.exit_code}")
        reason = errors[-1] if errors else " ".join(state.message.split())[:300]
        say(f"{submission_id}: {ended}")
        return f"{ended}: {reason}" if reason else ended


def judge(state: JobState) -> int | None:
    """Returns the exit code of the night; None where another try may come further.

    A stopped job is no success, though `ray job submit` exits with 0 then.
    """
    if state.status == "SUCCEEDED":
        return EXIT_DONE
    if state.status == "FAILED" and state.exit_code in ANSWERED:
        return state.exit_code
    return None
