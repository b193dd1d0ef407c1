"""Progress that a person can follow: a bar on a terminal, a line every now and then in a job's log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import pyarrow as pa
import ray
from tqdm import tqdm

from jobs.cluster.tally import Report, Reported, start_tally

BAR_INTERVAL_S = 0.5
LINE_INTERVAL_S = 5.0
"""Seconds to a log's first line; each later one takes twice as long, up to MAX_LINE_INTERVAL_S."""
MAX_LINE_INTERVAL_S = 320.0


class LineSchedule:
    """When a log gets its next line: after 5, 10, 20, 40 s and so on, and once as soon as the end can be estimated."""

    def __init__(self) -> None:
        """The first line is due LINE_INTERVAL_S from now."""
        self._interval_s, self._said_at, self._was_estimated = LINE_INTERVAL_S, time.monotonic(), False

    def is_due(self, now: float, *, is_estimated: bool = False) -> bool:
        """Says whether a line is due at ``now``, a time of time.monotonic(); if so, plans the next.

        Args:
            now: in seconds.
            is_estimated: whether the line would say how long the rest takes.
        """
        is_news = is_estimated and not self._was_estimated
        if not is_news and now - self._said_at < self._interval_s:
            return False
        self._was_estimated = self._was_estimated or is_estimated
        self._said_at, self._interval_s = now, min(2 * self._interval_s, MAX_LINE_INTERVAL_S)
        return True


def format_duration(seconds: float) -> str:
    """Formats a duration as people say it: 40 s, 12 min, 3.2 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class Progress:
    """Shows what is reported while its ``with`` block runs.

    Args:
        total: units expected.
        activity: what happens to them, for the bar and the lines ("scoring").
        unit: what is counted.
    """

    def __init__(self, total: int, *, activity: str, unit: str = "photo") -> None:
        """Starts the tally's actor; it takes no CPU slot."""
        self._tally = start_tally()
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
        lines = LineSchedule()
        with tqdm(total=self._total, desc=self._activity, unit=self._unit, disable=not on_terminal) as bar:
            last, said = False, ""
            while not last:
                last = self._stop.wait(interval_s)
                try:
                    self.reported = ray.get(self._tally.read.remote(), timeout=10)
                except ray.exceptions.GetTimeoutError:
                    continue  # a busy cluster answers later
                except ray.exceptions.RayError:
                    return  # the cluster is gone: the main thread has the error to show
                if self.reported.estimate != said:
                    said = self.reported.estimate
                    tqdm.write(said)
                bar.set_postfix_str(self.reported.note, refresh=False)
                bar.update(self.reported.units - bar.n)
                left_s = self.reported.estimate_left_s(self._total, time.time())
                if not on_terminal and (last or lines.is_due(time.monotonic(), is_estimated=left_s is not None)):
                    print(self._format_line(left_s), flush=True)

    def _format_line(self, left_s: float | None) -> str:
        now, elapsed_s = self.reported, time.monotonic() - self._started
        detail = now.note or ", ".join(f"{count} {kind}" for kind, count in sorted(now.counts.items()))
        done = f"{self._activity}: {now.units}/{self._total} {self._unit}s after {format_duration(elapsed_s)}"
        about = f", about {format_duration(left_s)} left" if left_s is not None else ""
        return f"{done}{about} ({detail or 'starting'})"


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
    began, lines = time.monotonic(), LineSchedule()
    with tqdm(total=total, desc=activity, unit="photo", disable=not on_terminal) as bar:
        rows = 0
        for batch in batches:
            yield batch
            rows += len(batch)
            bar.update(len(batch))
            now = time.monotonic()
            if not on_terminal and lines.is_due(now):
                of = f"/{total}" if total is not None else ""
                print(f"{activity}: {rows}{of} photos after {format_duration(now - began)}", flush=True)
