"""The Ray cluster that a command works on: joined or started, and what went wrong in it as one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from jobs import storage
from jobs.cluster.connection import ADDRESS_VARIABLE, OWN_CLUSTER, connect
from jobs.cluster.tries import StageError


def start_ray() -> None:
    """Joins the cluster of RAY_ADDRESS (as in `ray job submit`), else starts a local one of its own.

    Raises:
        JobError: neither; see `connect`.
    """
    for name, value in storage.make_worker_environment().items():
        os.environ.setdefault(name, value)  # Ray Tune writes from the driver as well
    if not ray.is_initialized():
        with keep_sigterm_handler():
            connect()
    configure_ray_data()


def start_own_ray() -> None:
    """Starts a local Ray, whatever cluster runs here: what is measured on it is not mixed with the work of others."""
    os.environ[ADDRESS_VARIABLE] = OWN_CLUSTER
    start_ray()


@contextmanager
def keep_sigterm_handler() -> Iterator[None]:
    """Puts this process's answer to SIGTERM back in place of Ray's, which aborts the process 3 s later.

    To let the lease go and Ray shut down takes longer than that on a busy machine.
    """
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            signal.signal(signal.SIGTERM, ours)


def configure_ray_data() -> None:
    """Makes Ray Data fail at the first lost block, and silences what no operator can act on."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts photos by status
    context.print_on_execution_start = False
    context.max_errored_blocks = 0  # a lost block would be lost rows
    context.raise_original_map_exception = True  # Ray's own in its place has no reason, see `jobs.cluster.tries`
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # Nothing of this is for an operator to act on: that bars are off, and that small archives keep few processes busy.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    for name in ("exceptions", "_internal.execution.streaming_executor_state"):  # our one line has the reason
        logging.getLogger(f"ray.data.{name}").addFilter(keep_off_console)
    warnings.filterwarnings("ignore", message="The (maximum|minimum) number of concurrent", category=UserWarning)


def keep_off_console(record: logging.LogRecord) -> bool:
    """Sends a record of Ray Data to its log file alone; returns True, for it is logged."""
    record.hide = True  # Ray Data's handler of the console asks for this
    return True


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FAILED_START = "raised in its creation task"


def explain_error(error: BaseException) -> str:
    """Returns what went wrong inside a worker, as one line, without the tracebacks that Ray puts around it."""
    while inner := find_cause(error):
        error = inner
    if isinstance(error, StageError):
        return str(error).splitlines()[0]  # Ray Data writes advice below the reason
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    if isinstance(error, ray.exceptions.ActorDiedError) and lines and _FAILED_START in lines[0]:
        return lines[-1]  # of the traceback that Ray puts there in place of the error
    message = lines[0] if lines else ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def find_cause(error: BaseException) -> BaseException | None:
    """Returns the error that this one was raised for, or None."""
    failures = getattr(error, "worker_failures", {}).values()  # Ray Train's, by rank
    candidates = (getattr(error, "cause", None), error.__cause__, *failures)
    return next((candidate for candidate in candidates if isinstance(candidate, BaseException)), None)
