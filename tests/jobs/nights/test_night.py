"""A night against a head written by hand, which refuses what Ray's refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import JobError, RequestError
from jobs.nights.cluster_check import PACKAGE, list_lacks
from jobs.nights.head import JobState, UnreachableHeadError, call_in_time, read_status_code, shorten
from jobs.nights.night import Night
from tests.support.servers.fake_head import ALARM, BAD, COMMAND, DONE, FAILED, FIELDS, RUNNING, STOPPED, FakeHead


def test_a_night_that_succeeds_is_submitted_once_under_the_id_of_its_date(night: Callable[..., Night]) -> None:
    head = FakeHead([JobState("PENDING"), RUNNING, DONE])
    assert night(head).run() == 0
    assert head.submitted == ["nightly-2026-11-29-1"]
    sent = head.sent["nightly-2026-11-29-1"]
    assert sent.startswith(f"{COMMAND}\n")
    assert sent.endswith(FIELDS)


@pytest.mark.parametrize("cut", [FAILED, STOPPED, None], ids=["failed", "stopped", "lost by a new head"])
def test_a_run_that_was_cut_off_is_submitted_again_under_the_next_id(
    night: Callable[..., Night], cut: JobState | None
) -> None:
    head = FakeHead([RUNNING, cut], [RUNNING, DONE])
    assert night(head).run() == 0
    assert head.submitted == ["nightly-2026-11-29-1", "nightly-2026-11-29-2"]
    assert all("--run-id nightly-2026-11-29 " in sent for sent in head.sent.values())


@pytest.mark.parametrize(("ended", "code"), [(ALARM, 3), (BAD, 2)], ids=["alarm", "bad request"])
def test_an_end_that_another_try_would_not_change_is_the_night_s(
    night: Callable[..., Night], ended: JobState, code: int
) -> None:
    head = FakeHead([RUNNING, ended])
    assert night(head).run() == code
    assert len(head.submitted) == 1


def test_tries_that_all_fail_end_with_the_reason_of_the_last(night: Callable[..., Night]) -> None:
    head = FakeHead([FAILED], [STOPPED])
    said = r"nightly-2026-11-29 did not end in 2 tries, the last: stopped: error: the disk is full"
    with pytest.raises(JobError, match=said):
        night(head, tries=2).run()


def test_between_two_tries_the_cluster_gets_time_twice_as_much_each_time(night: Callable[..., Night]) -> None:
    head = FakeHead([FAILED], [FAILED], [DONE])
    made = night(head, pause_s=60, poll_s=1)
    assert made.run() == 0
    assert made._clock.now() == 180


def test_a_night_that_is_called_again_goes_on_after_the_tries_that_failed(night: Callable[..., Night]) -> None:
    head = FakeHead([DONE])
    head.jobs |= {"nightly-2026-11-29-1": [FAILED], "nightly-2026-11-29-2": [BAD]}
    assert night(head, tries=1).run() == 0
    assert head.submitted == ["nightly-2026-11-29-3"]


@pytest.mark.parametrize(("known", "code"), [(DONE, 0), (ALARM, 3)], ids=["done", "alarm"])
def test_a_night_that_has_ended_is_not_run_twice(night: Callable[..., Night], known: JobState, code: int) -> None:
    head = FakeHead()
    head.jobs["nightly-2026-11-29-1"] = [known]
    assert night(head).run() == code
    assert head.submitted == []


def test_of_two_at_once_the_second_waits_for_the_first_one_s_job(night: Callable[..., Night]) -> None:
    class Slower(FakeHead):
        """Where another process submits between our look and our submission."""

        def submit(self, submission_id: str, *, entrypoint: str, folder: Path | None) -> bool:
            if "-check-" not in submission_id:
                self.jobs[submission_id] = [RUNNING, DONE]
            return super().submit(submission_id, entrypoint=entrypoint, folder=folder)

    head = Slower()
    assert night(head).run() == 0
    assert head.submitted == []


def test_a_head_that_starts_again_is_waited_for_and_one_that_is_gone_is_not(
    night: Callable[..., Night], capsys: pytest.CaptureFixture[str]
) -> None:
    away = UnreachableHeadError("http://h:8265 does not answer: refused")
    assert night(FakeHead([RUNNING, away, away, DONE]), poll_s=60).run() == 0
    assert capsys.readouterr().out.count("warning: http://h:8265 does not answer") == 1
    with pytest.raises(UnreachableHeadError, match="does not answer: refused"):
        night(FakeHead([RUNNING, away]), poll_s=60).run()


def test_a_head_that_does_not_answer_yet_is_waited_for_from_the_first_call_on(night: Callable[..., Night]) -> None:
    class StartingHead(FakeHead):
        """Which answers at the third call."""

        calls = 0

        def submit(self, submission_id: str, *, entrypoint: str, folder: Path | None) -> bool:
            self.calls += 1
            if self.calls < 3:
                raise UnreachableHeadError("http://h:8265 does not answer: refused")
            return super().submit(submission_id, entrypoint=entrypoint, folder=folder)

    assert night(StartingHead([DONE]), poll_s=60).run() == 0


def test_a_cluster_that_lacks_something_is_told_so_before_the_run_is_submitted(night: Callable[..., Night]) -> None:
    head = FakeHead()
    head.answer |= {"python": [3, 10, 2], "ray": None, "package": "0.0.1", "missing": ["deltalake"]}
    said = r"needed Python >= 3.11, got 3.10.2; needed Ray .*, got none; needed attentdiffernet-ray .*deltalake"
    with pytest.raises(RequestError, match=said):
        night(head).run()
    assert head.submitted == []


def test_a_cluster_that_gets_the_code_sent_needs_no_package_of_ours() -> None:
    found = {"python": [3, 12, 0], "ray": "2.60.0", "package": None, "missing": []}
    needed = {"ray": "2.60.0", PACKAGE: "0.1.0"}
    assert list_lacks(found, needed=needed, upload_code=True) == []
    assert len(list_lacks(found, needed=needed, upload_code=False)) == 1


def test_a_python_that_does_not_run_on_the_cluster_is_said_with_its_last_words(night: Callable[..., Night]) -> None:
    class NoPython(FakeHead):
        def read_log(self, submission_id: str) -> str:
            return "/bin/sh: 1: python: not found\n"

    with pytest.raises(JobError, match=r"python did not run there: /bin/sh: 1: python: not found; see --python"):
        night(NoPython()).run()


def test_a_call_that_hangs_ends_in_time_and_one_that_fails_raises_its_own_error() -> None:
    hangs = threading.Event().wait
    with pytest.raises(TimeoutError, match=r"no answer in 0.05 s"):
        call_in_time(hangs, timeout_s=0.05)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        call_in_time(lambda: 1 / 0, timeout_s=5)
    assert call_in_time(lambda: "answer", timeout_s=5) == "answer"


def test_what_ray_says_of_an_error_is_one_line_with_its_code() -> None:
    error = RuntimeError("Request failed with status code 500: Traceback\n  File x\nValueError: no such thing.")
    assert read_status_code(error) == 500
    assert shorten(error) == "ValueError: no such thing."
