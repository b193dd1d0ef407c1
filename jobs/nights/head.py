"""The head of a Ray cluster as its job API shows it: submit, look, stop, read the log; each call ends in time."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from jobs.errors import JobError, RequestError, one_line

CALL_TIMEOUT_S = 60.0
"""Seconds that one call may take; Ray's client itself waits for ever."""
MISSING = 404
Answer = TypeVar("Answer")


class UnreachableHeadError(JobError):
    """The head does not answer: it may be starting again."""


@dataclass(frozen=True)
class JobState:
    """What the head says of a submitted job.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        exit_code: of the job's command, once it has ended by itself.
        message: Ray's own words.
        entrypoint: the job's shell command; empty where it is not known.
    """

    status: str
    exit_code: int | None = None
    message: str = ""
    entrypoint: str = ""

    @property
    def has_ended(self) -> bool:
        """Tells whether the job will not change any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class Head(Protocol):
    """What a night needs of a head. Every method may raise UnreachableHeadError."""

    def read_state(self, submission_id: str) -> JobState | None:
        """Returns the state of a job; None where the head knows none of this id."""

    def submit(self, submission_id: str, *, entrypoint: str, folder: Path | None) -> bool:
        """Submits a job; False where the id is taken.

        Args:
            submission_id: of the job.
            entrypoint: shell command to run.
            folder: sent along, the job's working directory; None sends nothing.
        """

    def stop(self, submission_id: str) -> None:
        """Asks a job to stop."""

    def read_log(self, submission_id: str) -> str:
        """Returns what a job has printed so far."""


class RayHead:
    """A head by Ray's own client."""

    def __init__(self, url: str, *, packages: tuple[Path, ...] = ()) -> None:
        """``packages``: folders of Python packages that are sent along with each job."""
        self._url = url
        self._packages = [str(package) for package in packages]
        self._client: JobSubmissionClient | None = None

    def read_state(self, submission_id: str) -> JobState | None:
        """See `Head`."""
        try:
            details = self._call(lambda client: client.get_job_info(submission_id))
        except RuntimeError as error:
            if read_status_code(error) == MISSING:
                return None
            raise self._explain(error) from error
        status = str(details.status.value)
        return JobState(status, details.driver_exit_code, details.message or "", details.entrypoint or "")

    def submit(self, submission_id: str, *, entrypoint: str, folder: Path | None) -> bool:
        """See `Head`.

        Raises:
            JobError: the head refused the job.
        """
        environment: dict[str, Any] = {"env_vars": {"OMP_NUM_THREADS": "1", "RAY_DATA_USE_DATASOURCE_V2": "0"}}
        if folder is not None:
            environment["working_dir"] = str(folder)
        if self._packages:
            environment["py_modules"] = self._packages
        try:
            self._call(
                lambda client: client.submit_job(
                    entrypoint=entrypoint, submission_id=submission_id, runtime_env=environment
                )
            )
        except RuntimeError as error:
            if self.read_state(submission_id) is not None:  # another process was first, or the answer was lost
                return False
            raise self._explain(error) from error
        return True

    def stop(self, submission_id: str) -> None:
        """See `Head`."""
        try:
            self._call(lambda client: client.stop_job(submission_id))
        except RuntimeError as error:
            raise self._explain(error) from error

    def read_log(self, submission_id: str) -> str:
        """See `Head`."""
        try:
            return str(self._call(lambda client: client.get_job_logs(submission_id)))
        except RuntimeError as error:
            raise self._explain(error) from error

    def _call(self, ask: Callable[[JobSubmissionClient], Answer]) -> Answer:
        """Asks the head.

        Raises:
            RequestError: the head wants a token, or what answers is no head.
            UnreachableHeadError: it does not answer.
            RuntimeError: it refuses, in Ray's words.
        """

        def connect_and_ask() -> Answer:
            if self._client is None:
                logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
                self._client = JobSubmissionClient(self._url)
            return ask(self._client)

        try:
            return call_in_time(connect_and_ask, timeout_s=CALL_TIMEOUT_S)
        except AuthenticationError as error:
            raise RequestError(
                f"{self._url} wants a token, or another one than it got: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH"
            ) from error
        except (requests.JSONDecodeError, KeyError, TypeError) as error:  # of an answer to Ray's client
            kind = type(error).__name__
            raise RequestError(
                f"{self._url} answers, but not as the head of a Ray cluster does ({kind}): correct --head"
            ) from error
        except (ConnectionError, TimeoutError, requests.RequestException) as error:
            raise UnreachableHeadError(f"{self._url} does not answer: {one_line(error)}") from error

    def _explain(self, error: RuntimeError) -> JobError:
        code = read_status_code(error)
        if code is not None and code >= 500:
            return UnreachableHeadError(f"{self._url} answers {code}: {shorten(error)}")
        return JobError(f"{self._url} refuses: {shorten(error)}")


def call_in_time(function: Callable[[], Answer], *, timeout_s: float) -> Answer:
    """Returns what ``function`` does, or raises what it raises.

    Raises:
        TimeoutError: it has not ended in time. Its thread is left to itself.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(function())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer in {timeout_s:g} s")
    return answers[0]


def read_status_code(error: RuntimeError) -> int | None:
    """Returns the HTTP status that Ray's client puts into the text of its errors."""
    match = re.search(r"status code (\d{3})", str(error))
    return int(match[1]) if match else None


def shorten(error: RuntimeError) -> str:
    """Returns the last line of what the head says: before it stands a traceback of the head's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
