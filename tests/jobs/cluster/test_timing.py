"""What a log says of time: rarer and rarer lines, and how long the rest takes as soon as that can be told."""

from __future__ import annotations

import itertools
import time

import pytest

from jobs.cluster import progress
from jobs.cluster.progress import LineSchedule, format_duration
from jobs.cluster.tally import Reported, Reporter, Tally


def find_line_times(*, seconds: int, estimated_at: int | None = None) -> list[int]:
    """Returns the seconds at which a job of that length writes lines, looked at once a second."""
    lines, began = LineSchedule(), time.monotonic()
    return [
        second
        for second in range(1, seconds + 1)
        if lines.is_due(began + second + 0.01, is_estimated=estimated_at is not None and second >= estimated_at)
    ]


def test_lines_grow_rarer() -> None:
    assert find_line_times(seconds=160) == [5, 15, 35, 75, 155]


def test_the_first_estimate_is_said_at_once_and_later_ones_when_a_line_is_due() -> None:
    assert find_line_times(seconds=70, estimated_at=17) == [5, 15, 17, 57]


def test_an_hour_without_a_line_does_not_come() -> None:
    lines = find_line_times(seconds=4 * 3600)
    assert max(later - earlier for earlier, later in itertools.pairwise(lines)) <= 321


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5000, "83 min"), (11_520, "3.2 h")]
)
def test_durations_are_said_in_units_that_people_use(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


def test_the_rest_is_estimated_from_processes_that_have_reported_twice() -> None:
    reporters = {name: Reporter(first_at=100.0, last_at=110.0, units=20) for name in "ab"}
    reported = Reported(counts={"scored": 60}, reporters=reporters)
    assert reported.estimate_left_s(460, now=115.0) == pytest.approx(100)  # two processes, two photos a second each


def test_two_processes_that_have_reported_once_are_an_estimate_too() -> None:
    reporters = {name: Reporter(first_at=100.0, last_at=100.0, units=0) for name in "ab"}
    reported = Reported(counts={"scored": 60}, reporters=reporters)
    assert reported.estimate_left_s(120, now=110.0) == pytest.approx(10)


@pytest.mark.parametrize("reporters", [{}, {"a": Reporter(100.0, 100.0, 0)}])
def test_nothing_is_estimated_from_one_report(reporters: dict[str, Reporter]) -> None:
    assert Reported(counts={"scored": 1}, reporters=reporters).estimate_left_s(10, now=200.0) is None


def test_a_line_names_the_phase_before_the_first_unit_and_the_rest_of_the_time_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tally = Tally()
    shown = object.__new__(progress.Progress)
    monkeypatch.setattr(shown, "_total", 240, raising=False)
    monkeypatch.setattr(shown, "_activity", "training", raising=False)
    monkeypatch.setattr(shown, "_unit", "epoch", raising=False)
    monkeypatch.setattr(shown, "_started", time.monotonic(), raising=False)
    tally.describe("decoding 240 photos")
    shown.reported = tally.read()
    assert shown._format_line(None) == "training: 0/240 epochs after 0 s (decoding 240 photos)"
    tally.add({"epoch": 1}, "")
    shown.reported = tally.read()
    assert shown._format_line(10_800) == "training: 1/240 epochs after 0 s, about 3.0 h left (1 epoch)"
