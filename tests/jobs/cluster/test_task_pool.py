"""Units of work, a few at a time: one failure ends no other, what is kept is not done again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import ray

from jobs.cluster.task_pool import describe_failure, read_outcomes, run_and_keep, run_units
from jobs.errors import JobError, RequestError


@pytest.fixture(autouse=True)
def _cluster_seems_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)


def test_a_failure_becomes_a_reason_and_ends_no_other_unit() -> None:
    found = {outcome.unit: outcome for outcome in run_units([1, 0, 2], lambda unit: 4 // unit, at_a_time=2)}
    assert {unit: outcome.result for unit, outcome in found.items()} == {0: None, 1: 4, 2: 2}
    assert found[0].reason == "ZeroDivisionError: integer division or modulo by zero"
    assert found[1].reason is None


def test_no_more_units_run_at_a_time_than_asked_for() -> None:
    running = threading.Semaphore(2)

    def work(unit: int) -> int:
        assert running.acquire(blocking=False), "a third unit runs"
        try:
            return unit
        finally:
            running.release()

    results = {outcome.result for outcome in run_units(range(50), work, at_a_time=2)}
    assert results == set(range(50))


def test_nothing_is_begun_once_ray_has_been_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C: the next call of Ray would start another cluster."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    (outcome,) = run_units(["cap"], lambda unit: pytest.fail("it begins"), at_a_time=1)
    assert outcome.reason == "cap: interrupted"


def test_errors_of_ours_are_told_without_their_class() -> None:
    assert describe_failure(JobError("too few photos")) == "too few photos"
    assert describe_failure(RequestError("no such folder")) == "no such folder"
    assert describe_failure(KeyError("what nobody thought of")) == "KeyError: 'what nobody thought of'"


def test_a_failure_in_a_ray_task_is_told_as_if_it_were_here(cluster: str) -> None:
    @ray.remote(num_cpus=0)
    def fail(unit: str) -> None:
        raise JobError(f"{unit} cannot be trained")

    (outcome,) = run_units(["cap"], lambda unit: ray.get(fail.remote(unit)), at_a_time=1)
    assert outcome.reason == "cap cannot be trained"


def test_outcomes_are_kept_and_failures_are_tried_again(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {f"file://{tmp_path}/{number}.json": number for number in range(3)}
    outcomes = run_and_keep(places, lambda unit: {"share": 4 // unit}, at_a_time=1, activity="dividing", noun="number")
    zero, one, two = places
    assert outcomes == {
        zero: {"failed": "ZeroDivisionError: integer division or modulo by zero"},
        one: {"share": 4},
        two: {"share": 2},
    }
    assert json.loads((tmp_path / "0.json").read_text()) == outcomes[zero]
    assert read_outcomes(places) == {one: {"share": 4}, two: {"share": 2}}
    assert "failed: 0: ZeroDivisionError" in capsys.readouterr().out


def test_a_damaged_outcome_is_named(tmp_path: Path) -> None:
    (tmp_path / "unit.json").write_text("{")
    with pytest.raises(JobError, match=r"unit\.json is damaged: expected JSON; delete it"):
        read_outcomes([f"file://{tmp_path}/unit.json"])
