"""What stages report, and how they learn that they should stop."""

from __future__ import annotations

import time

import pytest

from jobs.cluster.progress import Progress
from jobs.cluster.telemetry import RunTelemetry
from jobs.errors import JobError

pytestmark = pytest.mark.usefixtures("cluster")


def report_until_stopped(progress: Progress) -> None:
    """Reports as a stage does, for a minute at most."""
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        progress.report({"scored": 1})
        time.sleep(0.01)


def test_a_stage_that_reports_after_a_stop_ends_with_its_reason() -> None:
    with Progress(10, activity="scoring") as progress:
        progress.report({"scored": 1})
        progress.report({"scored": 1})
        progress.stop("the lease is lost")
        with pytest.raises(JobError, match="the lease is lost"):
            report_until_stopped(progress)
    assert progress.reported.counts["scored"] >= 2


def test_an_estimate_is_said_once_whoever_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(10, activity="scoring") as progress:
        telemetry = RunTelemetry(run_id="night", report=progress.report)
        assert [telemetry.wants_estimate(), telemetry.wants_estimate()] == [True, False]
        telemetry.announce("about 2 h")
        progress.report.announce("about 3 h")
    said = capsys.readouterr().out
    assert said.count("about 2 h\n") == 1
    assert "about 3 h" not in said
