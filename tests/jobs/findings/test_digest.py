"""The digest of a run's rows: what is counted, and what stands on top."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.findings.digest import COLUMNS, RunDigest, collect_p_values
from jobs.tables.schema import Status
from model.statistics.calibration import count_ranks
from model.statistics.false_discovery import estimate_alarms
from tests.jobs.findings.scores import make_scores


def _digest(*rows: dict[str, object], top: int = 10, batches: int = 1) -> RunDigest:
    digest = RunDigest(top=top)
    batch = make_scores(*rows).select(COLUMNS)
    step = max(1, -(-len(batch) // batches))
    digest.read(batch.slice(first, step) for first in range(0, len(batch), step))
    return digest


def test_rows_are_counted_by_status_and_by_reason() -> None:
    failed = {"status": Status.FAILED, "error": "timeout: 3 s: tried twice", "p_value": None, "score": None}
    digest = _digest({}, failed, failed, {"status": Status.MISSING, "error": "gone", "p_value": None})
    assert digest.counts == {Status.SCORED: 1, Status.FAILED: 2, Status.MISSING: 1}
    assert digest.reasons == {(Status.FAILED, "timeout"): 2, (Status.MISSING, "gone"): 1}


def test_photos_are_ordered_by_tail_rank_and_never_by_raw_score() -> None:
    digest = _digest(
        {"category": "a", "score": 9000.0, "p_value": 0.01, "tail_rank": 0.004},
        {"category": "b", "score": 3.0, "p_value": 0.01, "tail_rank": 0.0001},
        {"category": "b", "score": 2.0, "p_value": 0.002, "tail_rank": None},
    )
    assert [row["score"] for row in digest.top] == [3.0, 9000.0, 2.0]


@given(ranks=st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=60), batches=st.integers(1, 7))
def test_the_top_is_that_of_all_rows_whatever_the_batches(ranks: list[float], batches: int) -> None:
    digest = _digest(*({"tail_rank": rank, "p_value": rank} for rank in ranks), top=5, batches=batches)
    assert [row["tail_rank"] for row in digest.top] == sorted(ranks)[:5]
    assert all(first["tail_rank"] <= second["tail_rank"] for first, second in pairwise(digest.top))


def test_expected_false_alarms_count_photos_that_could_be_reported() -> None:
    mute = {"threshold": None, "is_anomaly": None}
    digest = _digest({"is_anomaly": True}, {}, mute, {"category": "b", "false_alarm_rate": 0.2})
    assert digest.categories["insulator"].expected_false_alarms == pytest.approx(0.1)
    assert digest.categories["b"].expected_false_alarms == pytest.approx(0.2)
    assert digest.categories["insulator"].anomalies == 1


@pytest.mark.parametrize(("photos", "confidence"), [(24, None), (30, None), (99, 0.9), (199, None)])
def test_expected_false_alarms_are_those_of_the_run_record(photos: int, confidence: float | None) -> None:
    row = {"calibration_photos": photos, "confidence": confidence, "false_alarm_rate": 0.05}
    ranks = count_ranks(photos, 0.05, confidence=confidence)
    estimated = estimate_alarms({0.5: 3}, calibration_photos=photos, ranks=ranks, alarms=0)
    found = _digest(row, row, row).categories["insulator"].expected_false_alarms
    assert found == pytest.approx(estimated.expected_false_alarms)


def test_photos_without_category_or_site_have_numbers_too() -> None:
    digest = _digest({"category": None, "status": Status.FAILED, "p_value": None}, {"site": "north"})
    assert digest.categories[""].not_scored == 1
    assert {name: numbers.scored for name, numbers in digest.sites.items()} == {"": 0, "north": 1}


def test_p_values_of_another_detector_are_not_compared_with() -> None:
    rows = make_scores({"p_value": 0.1}, {"p_value": 0.2, "detector_id": "other"}, {"p_value": None})
    found = collect_p_values([rows.select(["category", "detector_id", "p_value"])], {"insulator": {"d" * 16}})
    assert {name: np.round(values, 3).tolist() for name, values in found.items()} == {"insulator": [pytest.approx(0.1)]}
