"""Publication: one row per manifest row whatever came back, each slice in one commit, once."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import storage
from jobs.cluster.tally import Reported
from jobs.results.commit import Committed
from jobs.results.known import read_rows
from jobs.scoring.publication.publish import publish_slice
from jobs.scoring.publication.reconciliation import reconcile, stream_in_order
from jobs.scoring.publication.slices import RunSlice, divide_run
from jobs.scoring.publication.tally import tally_run
from jobs.scoring.record import (
    Published,
    compute_error_rate,
    make_record,
    read_record,
    write_record,
)
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.staged_rows import assemble_staged, make_key
from jobs.storage import uris
from jobs.tables.schema import SCHEMA_VERSION, SCORES, STAGED, Status
from jobs.tables.scratch import Scratch
from model.statistics.calibration import Calibration
from tests.jobs.scoring.scored_rows import DETECTOR, PLAN, make_manifest, make_scored


def _publish(staged: pa.Table, manifest: pa.Table, results: str, part: RunSlice | None = None) -> Committed:
    return publish_slice(
        part or RunSlice(0, 0, len(manifest)),
        staged.to_batches(),
        manifest=manifest.to_batches,
        plan=PLAN,
        folder=RunFolder(results, "night-1"),
        slice_number=part.number if part else 0,
        run_date=date(2026, 11, 21),
        known_since=-1,
    )


def _reconciled(staged: pa.Table, manifest: pa.Table, part: RunSlice | None = None) -> pa.Table:
    part = part or RunSlice(0, 0, len(manifest))
    with Scratch() as scratch:
        reconcile(scratch, staged.to_batches(), manifest=manifest.to_batches, part=part, plan=PLAN)
        return pa.Table.from_batches(stream_in_order(scratch), schema=SCORES)


@given(rows=st.integers(0, 60), slice_photos=st.integers(1, 70))
def test_slices_follow_each_other_and_hold_every_row_once(rows: int, slice_photos: int) -> None:
    slices = divide_run(rows, slice_photos)
    assert [part.number for part in slices] == list(range(len(slices)))
    assert [image_id for part in slices for image_id in range(part.first, part.end)] == list(range(rows))
    assert all(part.rows == slice_photos for part in slices[:-1])


@settings(max_examples=40, deadline=None)
@given(came_back=st.lists(st.integers(0, 9), max_size=30))
@pytest.mark.slow
def test_whatever_came_back_every_manifest_row_is_one_row(came_back: list[int]) -> None:
    manifest = make_manifest(10)
    staged = make_scored(manifest, [1.0] * 10).take(pa.array(came_back, pa.int64()))
    rows = _reconciled(staged, manifest)
    by_size = dict(zip(rows["image_bytes"].to_pylist(), rows["status"].to_pylist(), strict=True))
    assert len(rows) == 10
    assert by_size == {n: Status.SCORED if n in came_back else Status.FAILED for n in range(10)}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_copies_of_a_row_the_scored_one_is_kept(order: list[int]) -> None:
    manifest = make_manifest(1)
    failed = assemble_staged(
        manifest,
        plan=PLAN,
        statuses=[Status.FAILED],
        errors=["process_died: x"],
        scores=np.array([np.nan]),
    )
    staged = pa.concat_tables([failed, make_scored(manifest, [1.0])]).take(pa.array(order))
    assert _reconciled(staged, manifest)["status"].to_pylist() == [Status.SCORED]


def test_a_slice_takes_its_own_rows_alone_also_where_some_were_lost() -> None:
    manifest, part = make_manifest(9), RunSlice(1, 3, 3)
    rows = _reconciled(make_scored(manifest, [1.0] * 9).take(pa.array([1, 3, 5, 6])), manifest, part)
    found = dict(zip(rows["image_bytes"].to_pylist(), rows["status"].to_pylist(), strict=True))
    assert found == {3: Status.SCORED, 4: Status.FAILED, 5: Status.SCORED}


def test_a_lost_row_says_so_and_keeps_what_is_known() -> None:
    (row,) = _reconciled(STAGED.empty_table(), make_manifest(1)).to_pylist()
    assert row["error"].startswith("lost: ")
    assert (row["image_uri"], row["image_bytes"], row["detector_id"]) == ("s3://a/cap/0", 0, DETECTOR.detector_id)
    assert (row["score"], row["p_value"], row["is_anomaly"]) == (None, None, None)


def test_p_value_threshold_and_anomaly_agree() -> None:
    rows = make_scored(make_manifest(3), [0.5, 19.0, 19.5]).to_pylist()
    assert [row["p_value"] for row in rows] == [1.0, 2 / 20, 1 / 20]
    assert [row["is_anomaly"] for row in rows] == [False, False, True]
    assert {row["threshold"] for row in rows} == {19.0}


def test_a_row_can_be_read_alone() -> None:
    plan = PLAN.model_copy(update={"root": "s3://a"})
    rows = assemble_staged(
        make_manifest(3),
        plan=plan,
        statuses=[Status.SCORED, Status.SCORED, Status.UNREADABLE],
        errors=[None, None, "corrupt: cut"],
        scores=np.array([25.0, 2500.0, np.nan]),
    ).to_pylist()
    for row in rows:
        assert (row["weights_id"], row["false_alarm_rate"], row["confidence"]) == (DETECTOR.weights_id, 0.05, None)
        assert (row["calibration_photos"], row["smallest_p_value"]) == (19, 0.05)
    assert [row["image_key"] for row in rows] == ["cap/0", "cap/1", "cap/2"]
    assert rows[0]["p_value"] == rows[1]["p_value"] == 0.05
    assert 0.05 > rows[0]["tail_rank"] > rows[1]["tail_rank"] > 0
    assert (rows[2]["tail_rank"], rows[2]["p_value"]) == (None, None)


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("s3://b/archive/cap/1.jpg", "s3://b/archive", "cap/1.jpg"),
        ("s3://b/archive/cap/1.jpg", "s3://b", "archive/cap/1.jpg"),
        ("s3://b/archive/cap/1.jpg", None, "archive/cap/1.jpg"),
        ("s3://b/archives/1.jpg", "s3://b/archive", "archives/1.jpg"),
        ("file:///photos/cap/1.jpg", "file:///photos", "cap/1.jpg"),
    ],
)
def test_the_key_of_a_photo_lies_below_the_archive(uri: str, root: str | None, key: str) -> None:
    assert make_key(uri, root) == key


def test_without_enough_calibration_photos_nobody_is_called_an_anomaly_or_flawless() -> None:
    small = DETECTOR.model_copy(update={"threshold": Calibration(scores=(1.0,)).find_threshold(0.05)})
    mute = PLAN.model_copy(update={"by_category": {"cap": small}})
    (row,) = assemble_staged(
        make_manifest(1), plan=mute, statuses=[Status.SCORED], errors=[None], scores=np.array([9.0])
    ).to_pylist()
    assert (row["threshold"], row["is_anomaly"]) == (None, None)
    assert row["p_value"] is not None


def test_a_slice_is_committed_once_however_often_it_is_published(tmp_path: object) -> None:
    results, manifest = f"file://{tmp_path}", make_manifest(5)
    staged = make_scored(manifest, [3.0, 1.0, 5.0, 2.0, 4.0])
    done = [_publish(staged, manifest, results) for _ in range(2)]
    assert [(one.rows, one.already) for one in done] == [(5, False), (0, True)]
    (file,) = [info.uri for info in storage.list_objects(RunFolder(results, "night-1").table) if "parquet" in info.uri]
    written = pq.read_table(uris.split(file)[2].join(["/", ""]), partitioning=None)
    assert set(written["run_date"].to_pylist()) == {date(2026, 11, 21)}
    assert written.drop_columns(["run_date"]).schema.equals(SCORES, check_metadata=False)
    assert written.schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert written["image_uri"].to_pylist() == sorted(manifest["image_uri"].to_pylist())
    assert tally_run(results, "night-1").counts == {Status.SCORED: 5}


def test_the_slices_of_a_run_make_every_row_of_it_once(tmp_path: object) -> None:
    results, manifest = f"file://{tmp_path}", make_manifest(5)
    staged = make_scored(manifest, [1.0] * 5)
    for part in divide_run(5, 2):
        _publish(staged, manifest, results, part)
    assert sorted(read_rows(results, ["image_bytes"])["image_bytes"].to_pylist()) == list(range(5))


def test_a_row_number_that_is_not_in_the_manifest_is_no_row(tmp_path: object) -> None:
    assert _publish(make_scored(make_manifest(4), [1.0] * 4), make_manifest(2), f"file://{tmp_path}").rows == 2


def test_the_record_counts_what_the_table_has_of_the_run(tmp_path: object) -> None:
    results, manifest = f"file://{tmp_path}", make_manifest(2)
    _publish(make_scored(manifest, [1.0, 2.0]), manifest, results)
    record = make_record(
        Published(tally_run(results, "night-1"), slices=1, dropped=3),
        plan=PLAN,
        config={"false_alarm_rate": 0.05},
        listed=7,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        timings_s={},
        reported=Reported(),
    )
    write_record(record, RunFolder(results, "night-1"))
    found = read_record(RunFolder(results, "night-1"))
    assert found is not None
    assert (found["counts"]["scored"], found["already_scored"], found["listed"]) == (2, 5, 7)
    assert (found["slices"], found["dropped"]) == (1, 3)


@pytest.mark.parametrize(
    ("counts", "rate"), [({"scored": 8, "unreadable": 1, "failed": 1, "missing": 0}, 0.2), ({}, 0.0)]
)
def test_the_error_rate_counts_what_could_not_be_read_ormake_scored(counts: dict[str, int], rate: float) -> None:
    assert compute_error_rate(counts) == rate
