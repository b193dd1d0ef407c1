"""What a night refuses before or while it runs: wrong requests, names of others, and more time than it has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo

import pytest

from jobs.errors import RequestError
from jobs.nights import config as nights
from jobs.nights.config import NightlyConfig
from jobs.nights.head import JobState
from jobs.nights.night import Night
from tests.support.servers.fake_head import COMMAND, FAILED, FIELDS, RUNNING, FakeHead


def test_the_end_of_the_hours_stops_the_job_and_says_that_the_next_night_goes_on(
    night: Callable[..., Night], capsys: pytest.CaptureFixture[str]
) -> None:
    head = FakeHead([RUNNING])
    assert night(head, hours=2, poll_s=60).run() == 1
    assert head.stopped == ["nightly-2026-11-29-1"]
    assert "stopped after 2 hours; what nightly-2026-11-29 has committed is in the table" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["SUCCEEDED", "RUNNING"])
def test_a_night_whose_name_is_another_archive_s_is_refused(night: Callable[..., Night], state: str) -> None:
    head = FakeHead()
    head.jobs["nightly-2026-11-29-1"] = [JobState(state, 0, entrypoint=COMMAND.replace("/photos", "/others"))]
    with pytest.raises(RequestError, match=r"another request's on this head .*others.*: give each archive a --name"):
        night(head).run()
    assert head.submitted == []


def test_a_night_that_has_ended_by_another_python_of_the_same_request_is_not_run_twice(
    night: Callable[..., Night],
) -> None:
    head = FakeHead()
    head.jobs["nightly-2026-11-29-1"] = [JobState("SUCCEEDED", 0, entrypoint="/opt/" + COMMAND)]
    assert night(head).run() == 0


def test_a_night_keeps_its_date_when_midnight_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Evening(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 11, 29, 23, 59, 59, tzinfo=tz)

    monkeypatch.setattr(nights, "datetime", Evening)
    config = NightlyConfig.model_validate({"head": "http://h:8265", "score_config": "/a.yaml"})
    monkeypatch.undo()
    assert config.run_id == "nightly-2026-11-29"


def test_the_hours_end_a_night_on_time_however_seldom_it_looks(night: Callable[..., Night]) -> None:
    made = night(FakeHead([RUNNING]), hours=0.5, poll_s=600)
    assert made.run() == 1
    assert made._clock.now() == 1800


@pytest.mark.parametrize("pause_s", [60, 86_400])
def test_no_try_is_submitted_after_the_end_of_the_hours(
    night: Callable[..., Night], pause_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    head = FakeHead([FAILED], [FAILED], [FAILED], [FAILED], [FAILED], [FAILED], [FAILED])
    made = night(head, hours=0.5, tries=20, pause_s=pause_s)
    assert made.run() == 1
    assert made._clock.now() == 1800
    assert head.stopped == []
    said = capsys.readouterr().out
    assert f"nightly-2026-11-29-{len(head.submitted) + 1} was not submitted: the 0.5 hours are over; what " in said


def test_a_job_that_is_there_already_is_waited_for_until_the_hours_end(night: Callable[..., Night]) -> None:
    head = FakeHead()
    head.jobs["nightly-2026-11-29-1"] = [RUNNING]
    assert night(head, hours=0.001).run() == 1
    assert head.stopped == ["nightly-2026-11-29-1"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (FIELDS.replace("s3://results", "results"), "results: expected a URI, or an absolute path .* got 'results'"),
        (FIELDS.replace("s3://models", "~/models"), "detectors: expected a URI, or an absolute path .* got '~/models'"),
        (FIELDS + "boxes: boxes.json\n", "boxes: expected a URI, or an absolute path .* got 'boxes.json'"),
        (FIELDS + "local: true\n", "local scores in one process, on the head: take it out"),
        (FIELDS + "run_id: mine\n", r"run_id is made of the name and the night \(nightly-2026-11-29\)"),
        (FIELDS + "false_alarm_rate: 2\n", "--false-alarm-rate: input should be less than 1"),
        (FIELDS + "archiv: s3://a\n", "archiv"),
    ],
    ids=["relative", "home", "relative boxes", "local", "run id", "range", "unknown"],
)
def test_a_wrong_request_is_refused_before_anything_is_submitted(
    night: Callable[..., Night], fields: str, said: str
) -> None:
    head = FakeHead()
    with pytest.raises(RequestError, match=said):
        night(head, fields=fields).run()
    assert head.jobs == {}


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.1:8265",
        "ray://10.0.0.1:10001",
        "http://",
        "http://:8265",
        "http://h:99999",
        "http://h:0",
        "http://[::1",
        "http://h:x",
    ],
)
def test_an_address_that_is_no_dashboard_s_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected the URL of the cluster's dashboard"):
        NightlyConfig.model_validate({"head": url, "score_config": "/a.yaml"})
