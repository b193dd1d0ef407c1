"""What a run says of its promise: in the record, in the summary, and where no anomaly was possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobs.detectors.registry import RegisteredDetector
from jobs.scoring.plan import PlannedDetector, ScoringPlan, plan_registered_detector
from jobs.scoring.record import describe_promises
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.summary import format_promises, summarize_run
from model.config import DetectorConfig
from model.statistics.calibration import Calibration


def _plan(*, photos: int, rate: float, confidence: float | None = None) -> PlannedDetector:
    calibration = Calibration(scores=tuple(np.arange(float(photos))))
    registered = RegisteredDetector("insulator", "0" * 16, DetectorConfig(), calibration)
    return plan_registered_detector(registered, rate, confidence=confidence)


def _record(rate: float, *, confidence: float | None = None, **photos: int) -> dict[str, Any]:
    planned = {name: _plan(photos=count, rate=rate, confidence=confidence) for name, count in photos.items()}
    plan = ScoringPlan(run_id="r", detectors="d", by_category=planned, max_pixels=1)
    asked = {"false_alarm_rate": rate, "confidence": confidence}
    counts = {"scored": 7, "unreadable": 0}
    return {
        "run_id": "r",
        "counts": counts,
        "images_per_s": None,
        "anomalies": 0,
        "listed": 7,
        "already_scored": 0,
        "promises": describe_promises(plan, asked),
    }


def _summary(record: dict[str, Any]) -> str:
    return summarize_run(record, [], folder=RunFolder("file:///results", "r"), top=0)


def test_no_anomaly_where_none_was_possible_is_said_with_the_smallest_rate_and_the_photos_needed() -> None:
    record = _record(0.01, insulator=60)
    said = _summary(record)
    assert "0 anomalies" not in said
    assert "no anomaly was possible: too few calibration photos" in said.splitlines()[0]
    assert "is_anomaly is NULL: insulator has 60 calibration photos, smallest rate 1.64%; 0.01 needs 99" in said
    promise = record["promises"]["insulator"]
    assert (promise["threshold"], promise["photos_needed"]) == (None, 99)
    assert promise["smallest_rate"] == pytest.approx(1 / 61)


def test_a_category_that_could_report_keeps_its_count_beside_one_that_could_not() -> None:
    said = _summary(_record(0.01, damper=200, insulator=60))
    assert said.splitlines()[0].endswith("; 0 anomalies")
    assert "promise: of flawless photos at most 0.01 are reported, on average over calibration sets" in said
    assert "no anomaly was possible, is_anomaly is NULL: insulator has 60" in said
    assert "damper has" not in said


def test_enough_photos_need_no_word_of_caution() -> None:
    assert format_promises(_record(0.05, insulator=60)) == [
        "promise: of flawless photos at most 0.05 are reported, on average over calibration sets"
    ]


def test_confidence_raises_the_threshold_and_is_promised() -> None:
    alone, sure = _plan(photos=100, rate=0.05), _plan(photos=100, rate=0.05, confidence=0.9)
    assert alone.threshold is not None
    assert sure.threshold is not None
    assert sure.threshold > alone.threshold
    said = _summary(_record(0.05, confidence=0.9, insulator=100))
    assert "with a probability of at least 0.9 over the draw of the calibration photos" in said


def test_confidence_needs_more_photos_and_the_summary_says_how_many() -> None:
    assert _plan(photos=30, rate=0.05).threshold is not None
    said = _summary(_record(0.05, confidence=0.9, insulator=30))
    assert "insulator has 30 calibration photos, smallest rate 7.39%; 0.05 needs 45 calibration photos" in said


def test_a_record_of_an_earlier_version_is_summarized_without_promises() -> None:
    record = _record(0.05, insulator=60)
    del record["promises"]
    assert _summary(record).splitlines()[0].endswith("; 0 anomalies")
