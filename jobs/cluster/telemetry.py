"""What stages say of their work: to the run's tally, for its record, and to Ray's metrics, for Prometheus.

Ray's dashboard agent exports the metrics with the prefix ``ray_``: ray_attentdiffernet_photos_total by status, and a
counter for each measure. All carry the tag ``run_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, Protocol

import ray

from jobs.cluster.tally import Report, Reported, Tally, name_process

MEASURES = {
    "fetched_bytes": "bytes of photos that came from storage",
    "fetch_s": "seconds that photos were waited for, summed over concurrent requests",
    "decode_s": "seconds of decoding and resizing",
    "score_s": "seconds of the networks",
    "detector_loads": "detectors loaded into a scoring process",
    "detector_evictions": "detectors dropped for want of room",
    "detector_load_s": "seconds of loading detectors",
}
"""Measure -> what it is; all are sums since the run began."""


@dataclass(frozen=True)
class Workload:
    """What a run's scoring processes have to do, for an estimate before they begin.

    Attributes:
        photos: of the run.
        processes: that share them.
        batch_photos: photos of a batch.
    """

    photos: int
    processes: int
    batch_photos: int


class Telemetry(Protocol):
    """Takes what a stage has done."""

    def add_rows(self, counts: Mapping[str, int]) -> None:
        """Counts rows that are final, by status."""

    def add_measures(self, values: Mapping[str, float]) -> None:
        """Adds to measures, by the names of MEASURES."""

    def wants_estimate(self) -> bool:
        """Tells one process of a run, the first that asks, to time its work."""

    def announce(self, estimate: str) -> None:
        """Says how long the run will take."""


class LocalTelemetry:
    """Keeps a tally in this process, where there is no Ray. Two threads may use it: each call adds at once."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._tally, self._turn = Tally(), Lock()

    @property
    def reported(self) -> Reported:
        """What was done so far."""
        return self._tally.read()

    def add_rows(self, counts: Mapping[str, int]) -> None:
        """Adds to counts; see `Telemetry.add_rows`."""
        with self._turn:
            self._tally.add(counts, "", name_process())

    def add_measures(self, values: Mapping[str, float]) -> None:
        """Adds to measures; see `Telemetry.add_measures`."""
        with self._turn:
            self._tally.measure(values)

    def wants_estimate(self) -> bool:
        """Says yes; see `Telemetry.wants_estimate`."""
        return True

    def announce(self, estimate: str) -> None:
        """Prints the estimate at once."""
        print(estimate, flush=True)


class RunTelemetry:
    """A run's `Telemetry`; it travels to workers and never waits."""

    def __init__(self, *, run_id: str, report: Report) -> None:
        """``report``: of a running Progress."""
        self._run_id, self._report = run_id, report

    def add_rows(self, counts: Mapping[str, int]) -> None:
        """Counts rows and reports them as progress; see `Telemetry.add_rows`."""
        self._report(counts)
        for status, count in counts.items():
            make_photo_counter().inc(count, {"run_id": self._run_id, "status": str(status)})

    def add_measures(self, values: Mapping[str, float]) -> None:
        """Adds to measures and reports them as progress; see `Telemetry.add_measures`."""
        self._report.add_measures(values)
        for name, value in values.items():
            make_measure_counter(name).inc(value, {"run_id": self._run_id})

    def wants_estimate(self) -> bool:
        """Says yes to the first process that asks; see `Telemetry.wants_estimate`."""
        return self._report.begin_try("estimate") == 1

    def announce(self, estimate: str) -> None:
        """Tells the driver, which prints it; see `Telemetry.announce`."""
        self._report.announce(estimate)


@cache
def make_photo_counter() -> Any:
    """Returns this process's counter of photos that have their row, by status."""
    return _counter("attentdiffernet_photos_total", "photos that have their row", "run_id", "status")


@cache
def make_measure_counter(name: str) -> Any:
    """Returns this process's counter of a measure of MEASURES."""
    return _counter(f"attentdiffernet_{name}_total", MEASURES[name], "run_id")


def _counter(name: str, description: str, *tags: str) -> Any:
    return ray.util.metrics.Counter(name, description=description, tag_keys=tags)
