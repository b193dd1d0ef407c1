"""What a run says of its promise: in the record, in the summary, and where no anomaly was possible."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.detectors.registry import RegisteredDetector
from jobs.scoring.plan import PlannedDetector, ScoringPlan, plan_registered_detector
from jobs.scoring.promises import describe_false_discoveries, describe_promises
from jobs.scoring.publication.tally import RunTally
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.summary import (
    COLUMNS,
    format_most_anomalous,
    format_promises,
    format_rates,
    rank_rows,
    summarize_run,
)
from jobs.tables.schema import SCORES
from model.config import DetectorConfig
from model.statistics.calibration import Calibration


def _plan(*, photos: int, rate: float | None, confidence: float | None = None) -> PlannedDetector:
    calibration = Calibration(scores=tuple(np.arange(float(photos))))
    registered = RegisteredDetector("insulator", "0" * 16, DetectorConfig(), calibration)
    return plan_registered_detector(registered, rate, confidence=confidence)


def _record(rate: float | None, *, confidence: float | None = None, **photos: int) -> dict[str, Any]:
    planned = {name: _plan(photos=count, rate=rate, confidence=confidence) for name, count in photos.items()}
    plan = ScoringPlan(run_id="r", detectors="d", by_category=planned, max_pixels=1)
    counts = {"scored": 7, "unreadable": 0}
    return {
        "run_id": "r",
        "counts": counts,
        "images_per_s": None,
        "anomalies": 0,
        "listed": 7,
        "already_scored": 0,
        "promises": describe_promises(plan),
        "config": {"false_alarm_rate": rate},
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


def test_without_a_rate_each_category_takes_the_smallest_that_its_calibration_supports() -> None:
    record = _record(None, damper=999, insulator=50, clamp=10)
    rates = {name: one["false_alarm_rate"] for name, one in record["promises"].items()}
    assert rates == {"damper": 1 / 1000, "insulator": 1 / 51, "clamp": 0.05}
    assert {name for name, one in record["promises"].items() if one["threshold"] is None} == {"clamp"}
    said = _summary(record)
    assert "the smallest that each calibration supports, at most 5%: clamp 5.00% (10 calibration photos)" in said
    assert "insulator 1.97% (50 calibration photos); --false-alarm-rate asks for another" in said
    assert "clamp has 10 calibration photos, smallest rate 9.10%; 0.05 needs 19 calibration photos" in said


@pytest.mark.parametrize("photos", [45, 99, 230, 1000])
def test_the_smallest_rate_with_confidence_can_be_held(photos: int) -> None:
    planned = _plan(photos=photos, rate=None, confidence=0.9)
    assert planned.threshold == photos - 1
    assert planned.false_alarm_rate == pytest.approx(1 - 0.1 ** (1 / photos))


def test_a_rate_that_was_asked_for_is_obeyed_and_not_explained() -> None:
    record = _record(0.2, damper=999, insulator=50)
    assert {one["false_alarm_rate"] for one in record["promises"].values()} == {0.2}
    assert format_rates(record) == []


def _tally(counts: dict[str, dict[float, int]], *, anomalies: int) -> RunTally:
    """Counts rows with these p-values; as many of each category's smallest are anomalies."""
    tally = RunTally()
    for category, found in counts.items():
        rows = [p_value for p_value, count in sorted(found.items()) for _ in range(count)]
        columns = {
            "category": [category] * len(rows),
            "status": ["scored"] * len(rows),
            "p_value": rows,
            "is_anomaly": [number < anomalies for number in range(len(rows))],
        }
        absent = [None] * len(rows)
        table = pa.table({field.name: pa.array(columns.get(field.name, absent), field.type) for field in SCORES})
        for _ in tally.watch(table.to_batches(max_chunksize=100)):
            pass
    return tally


def _discoveries(photos: int, counts: dict[float, int], *, anomalies: int) -> dict[str, Any]:
    plan = ScoringPlan(run_id="r", detectors="d", by_category={"cap": _plan(photos=photos, rate=None)}, max_pixels=1)
    return describe_false_discoveries(plan, _tally({"cap": counts}, anomalies=anomalies))


def test_the_summary_says_what_many_alarms_are_worth() -> None:
    evenly = {rank / 100: 20 for rank in range(1, 101)}
    found = _discoveries(99, evenly | {0.01: 220}, anomalies=220)
    record = _record(None, cap=99) | {"false_discoveries": found}
    said = _summary(record)
    assert "alarms: 220 of 2200 scored photos; if all were flawless, 22.0 were to be expected" in said
    assert "estimated: 90.9% (95 % interval " in said
    assert "list with at most 10% false ones on average (Benjamini-Hochberg): the 220 photos with p_value" in said
    assert found["by_category"]["cap"] == {name: found[name] for name in found if name != "by_category"}


def test_too_few_calibration_photos_for_a_list_are_said_with_the_number_needed() -> None:
    found = _discoveries(50, {1 / 51: 10, 1.0: 1990}, anomalies=10)
    said = _summary(_record(None, cap=50) | {"false_discoveries": found})
    assert "no list with at most 10% false ones on average (Benjamini-Hochberg): it needs at least 1999" in said


def test_a_run_without_scored_photos_says_nothing_of_alarms() -> None:
    found = _discoveries(50, {}, anomalies=0)
    assert (found["photos"], found["true_alarm_share"], found["by_category"]) == (0, None, {})
    assert "alarms:" not in _summary(_record(None, cap=50) | {"false_discoveries": found})


def test_p_values_of_a_large_run_are_counted_not_held() -> None:
    tally = _tally({"cap": {0.5: 5000, 1.0: 2000}}, anomalies=0)
    assert tally.p_values == {"cap": Counter({0.5: 5000, 1.0: 2000})}


def test_the_top_list_follows_the_tail_rank_and_no_score() -> None:
    rows = [
        {"image_uri": "s3://a/plain", "p_value": 0.02, "tail_rank": 0.015, "score": 9e6, "threshold": 1.0},
        {"image_uri": "s3://b/broken", "p_value": 0.02, "tail_rank": 1e-9, "score": 3.0, "threshold": 2.9},
        {"image_uri": "s3://c/of-before", "p_value": 0.01, "tail_rank": None, "score": 5.0, "threshold": 1.0},
    ]
    whole = [dict.fromkeys(SCORES.names) | row for row in rows]
    ranked = rank_rows(pa.Table.from_pylist(whole, schema=SCORES), 3)
    assert ranked["image_uri"].to_pylist() == ["s3://b/broken", "s3://c/of-before", "s3://a/plain"]
    assert ranked.column_names == list(COLUMNS)


def test_boxes_of_one_photo_are_told_apart_in_the_top_list() -> None:
    boxes = ["1,2,30,40", "7,8,30,40", None]
    rows = [{"image_uri": "s3://a/1", "box": box, "p_value": 0.02, "tail_rank": 0.01} for box in boxes]
    lines = format_most_anomalous([dict.fromkeys(SCORES.names) | row for row in rows])
    assert [line.split("  ")[-1] for line in lines[1:]] == [
        "s3://a/1 box 1,2,30,40",
        "s3://a/1 box 7,8,30,40",
        "s3://a/1",
    ]
