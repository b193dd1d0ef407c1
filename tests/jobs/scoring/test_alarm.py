"""When a run that is done exits 3, and what it says then."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.scoring.config import ScoreConfig
from jobs.scoring.summary import list_alarms


def _config(**more: Any) -> ScoreConfig:
    return ScoreConfig.model_validate({"archive": "/a", "detectors": "/d", "results": "/r", "run_id": "n"} | more)


def test_one_broken_file_in_a_small_night_is_no_incident() -> None:
    assert list_alarms({"scored": 3, "unreadable": 1}, _config()) == []


def test_the_fewest_rows_of_an_alarm_can_be_set() -> None:
    assert list_alarms({"scored": 3, "unreadable": 1}, _config(min_alarm_rows=1)) == [
        "1 of 4 rows are unreadable or failed: 25.00%, and --max-error-rate allows 5.00%"
    ]


def test_unreadable_and_failed_rows_count_together() -> None:
    assert list_alarms({"scored": 94, "unreadable": 3, "failed": 3}, _config()) == [
        "6 of 100 rows are unreadable or failed: 6.00%, and --max-error-rate allows 5.00%"
    ]


@pytest.mark.parametrize(
    ("status", "flag"), [("missing", "--max-missing-rate"), ("no_detector", "--max-no-detector-rate")]
)
def test_a_night_of_rows_without_photo_or_detector_is_an_alarm(status: str, flag: str) -> None:
    (said,) = list_alarms({"scored": 40, status: 60}, _config())
    assert said.startswith(f"60 of 100 rows are {status}: 60.00%, and {flag} allows")


def test_limits_that_are_met_exactly_raise_no_alarm() -> None:
    counts = {"scored": 80, "unreadable": 10, "missing": 10}
    assert list_alarms(counts, _config(max_error_rate=0.1, max_missing_rate=0.1)) == []


def test_a_run_without_rows_raises_no_alarm() -> None:
    assert list_alarms({"scored": 0}, _config(max_error_rate=0)) == []
