"""Progress that a person can follow: a bar on a terminal, a line every few seconds in a job's log."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import ray
from tqdm import tqdm

from jobs.errors import JobError

BAR_INTERVAL_S = 0.5
LINE_INTERVAL_S = 5.0


@dataclass(frozen=True)
class Reporter:
    """A process that reports.

    Attributes:
        first_at: time of its first report, in seconds since the epoch.
        last_at: time of its last report.
        units: those reported after the first report.
    """

    first_at: float
    last_at: float
    units: int


@dataclass(frozen=True)
class Reported:
    """What stages have reported so far; times in seconds since the epoch, 0 before the first report.

    Attributes:
        counts: units done, by kind.
        measures: sums, by name.
        note: remark to show.
        reporters: the processes that have reported units, by name.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    reporters: Mapping[str, Reporter] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Units done, of any kind."""
        return sum(self.counts.values())

    @property
    def first_at(self) -> float:
        """Time of the first report."""
        return min((one.first_at for one in self.reporters.values()), default=0.0)

    @property
    def steady_per_s(self) -> float | None:
        """Units per second of one process, times the most processes at a time; None before one has reported twice.

        So neither the start of a process counts, nor that the last ones do not end together.
        """
        working_s = sum(one.last_at - one.first_at for one in self.reporters.values())
        if working_s <= 0:
            return None
        return sum(one.units for one in self.reporters.values()) / working_s * self._max_at_a_time

    @property
    def _max_at_a_time(self) -> int:
        spans = [(one.first_at, one.last_at) for one in self.reporters.values() if one.last_at > one.first_at]
        return max(sum(first <= began < last for first, last in spans) for began, _ in spans)


class Tally:
    """Keeps what stages report; lives in an actor, so that a stage's process may die without it."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._reported = Reported()
        self._stop_reason = ""

    def stop(self, reason: str) -> None:
        """Answers every later report with ``reason``, which ends the stage that reports."""
        self._stop_reason = reason

    def add(self, counts: Mapping[str, int], note: str, reporter: str = "") -> str:
        """Adds units done by kind in the process ``reporter``, and replaces the remark shown beside them.

        Returns:
            Why the stage should stop; empty if it should not.
        """
        now, was = time.time(), self._reported
        known = was.reporters.get(reporter)
        units = known.units + sum(counts.values()) if known else 0
        mine = Reporter(known.first_at if known else now, now, units)
        self._reported = replace(
            was,
            counts=Counter(was.counts) + Counter(counts),
            note=note,
            reporters={**was.reporters, reporter: mine},
        )
        return self._stop_reason

    def measure(self, values: Mapping[str, float]) -> None:
        """Adds to sums by name."""
        was = self._reported
        sums = {**was.measures, **{name: was.measures.get(name, 0) + value for name, value in values.items()}}
        self._reported = replace(was, measures=sums)

    def reach(self, kind: str, count: int, note: str) -> None:
        """Takes the count of a kind up to ``count``, never down: what is done again after a crash counts once."""
        self.add({kind: max(0, count - self._reported.counts.get(kind, 0))}, note)

    def read(self) -> Reported:
        """Returns what has been reported so far."""
        return self._reported


@cache
def name_process() -> str:
    """Returns a name that no other process has, on any node; always the same in one process."""
    return uuid.uuid4().hex


class Report:
    """What a stage calls with the units it has done; it travels to workers and never waits."""

    def __init__(self, tally: Any) -> None:
        """``tally``: actor handle of a Tally."""
        self._tally = tally
        self._answer: Any = None

    def __call__(self, counts: Mapping[str, int], note: str = "") -> None:
        """Reports units done by kind.

        Raises:
            JobError: the answer to an earlier report was to stop, see `Progress.stop`.
        """
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # without a tally the run is over anyway
                if reason := ray.get(self._answer):
                    raise JobError(reason)
        self._answer = self._tally.add.remote(dict(counts), note, name_process())

    def add_measures(self, values: Mapping[str, float]) -> None:
        """Reports sums by name, see `Tally.measure`."""
        self._tally.measure.remote(dict(values))

    def reach(self, kind: str, count: int, note: str = "") -> None:
        """Reports that ``count`` units of a kind are done in all, see `Tally.reach`."""
        self._tally.reach.remote(kind, count, note)


class Progress:
    """Shows what is reported while its ``with`` block runs.

    Args:
        total: units expected.
        activity: what happens to them, for the bar and the lines ("scoring").
        unit: what is counted.
    """

    def __init__(self, total: int, *, activity: str, unit: str = "photo") -> None:
        """Starts the tally's actor; it takes no CPU slot."""
        self._tally: Any = ray.remote(num_cpus=0)(Tally).remote()
        self.report = Report(self._tally)
        self.reported = Reported()
        self._total, self._activity, self._unit = total, activity, unit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def stop(self, reason: str) -> None:
        """Ends the stages that report, each at its next report but one, with ``reason`` as their error."""
        self._tally.stop.remote(reason)

    def __enter__(self) -> Self:
        """Begins to show."""
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shows the last state, which stays in ``reported``, and stops."""
        self._stop.set()
        self._thread.join()
        ray.kill(self._tally)

    def _follow(self) -> None:
        on_terminal = sys.stderr.isatty()
        interval_s = BAR_INTERVAL_S if on_terminal else LINE_INTERVAL_S  # each look wakes two processes
        with tqdm(total=self._total, desc=self._activity, unit=self._unit, disable=not on_terminal) as bar:
            last = False
            while not last:
                last = self._stop.wait(interval_s)
                try:
                    self.reported = ray.get(self._tally.read.remote(), timeout=10)
                except ray.exceptions.GetTimeoutError:
                    continue  # a busy cluster answers later
                except ray.exceptions.RayError:
                    return  # the cluster is gone: the main thread has the error to show
                bar.set_postfix_str(self.reported.note, refresh=False)
                bar.update(self.reported.units - bar.n)
                if not on_terminal:
                    print(self._format_line(), flush=True)

    def _format_line(self) -> str:
        now, elapsed_s = self.reported, time.monotonic() - self._started
        detail = now.note or ", ".join(f"{count} {kind}" for kind, count in sorted(now.counts.items()))
        done = f"{self._activity}: {now.units}/{self._total} {self._unit}s after {elapsed_s:.0f} s"
        return f"{done} ({detail})" if detail else done


def follow_rows(
    batches: Iterable[pa.RecordBatch], *, activity: str, total: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Passes batches on and says how many rows have gone by.

    Args:
        batches: the stream.
        activity: what happens to the rows ("listing").
        total: rows expected, where that is known.
    """
    on_terminal = sys.stderr.isatty()
    began = said_at = time.monotonic()
    with tqdm(total=total, desc=activity, unit="photo", disable=not on_terminal) as bar:
        rows = 0
        for batch in batches:
            yield batch
            rows += len(batch)
            bar.update(len(batch))
            if not on_terminal and time.monotonic() - said_at >= LINE_INTERVAL_S:
                said_at = time.monotonic()
                of = f"/{total}" if total is not None else ""
                print(f"{activity}: {rows}{of} photos after {said_at - began:.0f} s", flush=True)
