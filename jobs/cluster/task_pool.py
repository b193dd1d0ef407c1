"""Units of work, a few at a time: a failure becomes a reason, and an outcome that is kept is not made again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any, Generic, TypeVar

import ray

from jobs import storage
from jobs.cluster.progress import Progress
from jobs.cluster.session import explain_error
from jobs.errors import JobError, MissingObjectError
from jobs.tables.text import make_printable

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Stored = Mapping[str, Any]
"""What a unit came to, as JSON; one that failed has nothing but `FAILED`."""
FAILED = "failed"
"""Key of the reason."""


@dataclass(frozen=True)
class Outcome(Generic[Unit, Result]):
    """What became of one unit.

    Attributes:
        unit: which.
        result: what its work returned; None where it failed.
        reason: why it failed, one line; None where it did not.
        seconds: wall time.
    """

    unit: Unit
    result: Result | None
    reason: str | None
    seconds: float


def run_units(
    units: Sequence[Unit], work: Callable[[Unit], Result], *, at_a_time: int
) -> Iterator[Outcome[Unit, Result]]:
    """Does the work of units, begun in order; yields each outcome when it is there. One failure ends no other unit.

    Each unit's work runs in a thread of this process, which waits for the cluster: for a Ray task, or for Ray Train.

    Args:
        units: what to do; ``str(unit)`` names one in messages.
        work: does one; what it raises is the unit's failure, whatever it is.
        at_a_time: most units at a time.
    """

    def attempt(unit: Unit) -> Outcome[Unit, Result]:
        started_s = time.monotonic()
        try:
            if not ray.is_initialized():  # the driver is ending, and the next call of Ray would start another cluster
                raise JobError(f"{unit}: interrupted")
            return Outcome(unit, work(unit), None, time.monotonic() - started_s)
        except Exception as error:
            return Outcome(unit, None, describe_failure(error), time.monotonic() - started_s)

    if units:
        with ThreadPool(min(at_a_time, len(units))) as threads:
            yield from threads.imap_unordered(attempt, units)


def describe_failure(error: Exception) -> str:
    """Returns the reason of a failure as one line, without the name of our own error class."""
    if isinstance(error, JobError) and not isinstance(error, ray.exceptions.RayError):
        return str(error)
    return explain_error(error).removeprefix("JobError: ")


def read_outcomes(places: Iterable[str]) -> dict[str, Stored]:
    """Returns the outcomes that earlier runs have kept, by URI. A unit that failed is left out, so it is tried again.

    Args:
        places: URIs of the outcomes.

    Raises:
        JobError: one of them is not JSON.
    """
    return {uri: found for uri in places if (found := read_outcome(uri)) is not None}


def read_outcome(uri: str) -> Stored | None:
    """Reads a stored outcome; None where there is none or it failed. Raises JobError where it is damaged."""
    try:
        found = dict(json.loads(storage.read(uri)))
    except MissingObjectError:
        return None
    except ValueError as error:
        raise JobError(f"{uri} is damaged: expected JSON; delete it") from error
    return None if FAILED in found else found


def run_and_keep(
    units: Mapping[str, Unit], work: Callable[[Unit], Stored], *, at_a_time: int, activity: str, noun: str
) -> dict[str, Stored]:
    """Does the work of units with a progress bar, and keeps each outcome at its URI at once.

    Args:
        units: those that are left to do, by the URI of their outcome.
        work: does one and returns its outcome.
        at_a_time: most units at a time.
        activity: what happens, for the bar and the lines ("comparing").
        noun: what is counted.

    Returns:
        URI -> outcome, that of a failed unit ``{"failed": reason}``.
    """
    outcomes: dict[str, Stored] = {}
    places = list(units)
    with Progress(len(units), activity=activity, unit=noun) as progress:
        for found in run_units(places, lambda uri: work(units[uri]), at_a_time=at_a_time):
            unit = units[found.unit]
            outcomes[found.unit] = {FAILED: found.reason} if found.result is None else found.result
            storage.write(found.unit, json.dumps(outcomes[found.unit]).encode())
            if found.reason:
                print(f"failed: {make_printable(str(unit))}: {make_printable(found.reason or '')}", flush=True)
            progress.report({"failed" if found.reason else "done": 1}, f"{unit} took {found.seconds:.0f} s")
    return outcomes
