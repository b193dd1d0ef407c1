"""What stages report while a job runs: kept by an actor, so that a stage's process may die without it."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.errors import JobError


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
        estimate: how long all takes, as told before the first unit; empty for none.
        reporters: the processes that have reported units, by name.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    estimate: str = ""
    reporters: Mapping[str, Reporter] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Units done, of any kind."""
        return sum(self.counts.values())

    @property
    def first_at(self) -> float:
        """Time of the first report."""
        return min((one.first_at for one in self.reporters.values()), default=0.0)

    def estimate_left_s(self, total: int, now: float) -> float | None:
        """Estimates the seconds until ``total`` units are done; None before two reports have told a rate.

        Args:
            total: units expected.
            now: time in seconds since the epoch.
        """
        rate = self.steady_per_s
        if rate is None:  # no process has reported twice: one each is a rate too
            rate = self.units / (now - self.first_at) if len(self.reporters) > 1 and now > self.first_at else None
        return (total - self.units) / rate if rate and self.units < total else None

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
        self._tries = Counter[str]()
        self._records: dict[str, list[Mapping[str, Any]]] = {}

    def begin_try(self, work: str) -> int:
        """Counts a try of some work; returns how many have begun and not ended, this one included."""
        self._tries[work] += 1
        return self._tries[work]

    def end_try(self, work: str) -> None:
        """Forgets the tries of work that is done."""
        self._tries.pop(work, None)

    def record(self, name: str, row: Mapping[str, Any]) -> None:
        """Keeps a row until it is taken."""
        self._records.setdefault(name, []).append(row)

    def take_records(self, name: str) -> list[Mapping[str, Any]]:
        """Returns the rows that came under a name since they were last taken."""
        return self._records.pop(name, [])

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

    def describe(self, note: str) -> None:
        """Replaces the remark: what is done before the first unit."""
        self._reported = replace(self._reported, note=note)

    def announce(self, estimate: str) -> None:
        """Keeps how long all takes; the first one stays."""
        self._reported = replace(self._reported, estimate=self._reported.estimate or estimate)

    def reach(self, kind: str, count: int, note: str) -> None:
        """Takes the count of a kind up to ``count``, never down: what is done again after a crash counts once."""
        self.add({kind: max(0, count - self._reported.counts.get(kind, 0))}, note)

    def read(self) -> Reported:
        """Returns what has been reported so far."""
        return self._reported


def start_tally() -> Any:
    """Starts the actor of a Tally beside the driver, which the run dies with anyway; returns its handle.

    Another node may be taken away, and the counts with it. It takes no CPU slot.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0)(Tally).options(scheduling_strategy=here).remote()


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

    def begin_try(self, work: str) -> int:
        """Counts a try of some work and waits for the count, see `Tally.begin_try`; 1 where the tally is gone."""
        with suppress(ray.exceptions.RayError):
            return int(ray.get(self._tally.begin_try.remote(work)))
        return 1

    def end_try(self, work: str) -> None:
        """Reports that some work is done; the process's next `begin_try` comes after it."""
        self._tally.end_try.remote(work)

    def record(self, name: str, row: Mapping[str, Any]) -> None:
        """Hands on a row to whoever takes it, see `take_records`."""
        self._tally.record.remote(name, dict(row))

    def take_records(self, name: str) -> list[Mapping[str, Any]]:
        """Takes the rows that came under a name; none where the tally is gone."""
        with suppress(ray.exceptions.RayError):
            found: list[Mapping[str, Any]] = ray.get(self._tally.take_records.remote(name))
            return found
        return []

    def add_measures(self, values: Mapping[str, float]) -> None:
        """Reports sums by name, see `Tally.measure`."""
        self._tally.measure.remote(dict(values))

    def describe(self, note: str) -> None:
        """Reports what is done now, where no units come of it yet."""
        self._tally.describe.remote(note)

    def announce(self, estimate: str) -> None:
        """Reports how long all will take, see `Tally.announce`."""
        self._tally.announce.remote(estimate)

    def reach(self, kind: str, count: int, note: str = "") -> None:
        """Reports that ``count`` units of a kind are done in all, see `Tally.reach`."""
        self._tally.reach.remote(kind, count, note)
