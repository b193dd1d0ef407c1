"""Publication: one row per manifest row whatever came back, under names that a second try overwrites."""

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
from jobs.scoring import publish
from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.scoring.reconciliation import reconcile, stream_in_order
from jobs.scoring.record import Published, compute_error_rate, make_record, read_published, read_record, write_record
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.staged_rows import assemble_staged, make_key
from jobs.storage import uris
from jobs.tables.schema import MANIFEST, SCHEMA_VERSION, SCORES, STAGED, Status
from jobs.tables.scratch import Scratch
from model.statistics.calibration import Calibration
from model.statistics.tail_rank import fit_tail

CALIBRATION = Calibration(scores=tuple(float(score) for score in range(1, 20)))
DETECTOR = PlannedDetector(
    detector_id="0123456789abcdef",
    weights_id="fedcba9876543210",
    variant="tiny",
    image_size=64,
    views=4,
    precision="fp32",
    false_alarm_rate=0.05,
    confidence=None,
    threshold=CALIBRATION.find_threshold(0.05),
    calibration=CALIBRATION,
    tail=fit_tail(CALIBRATION),
)
PLAN = ScoringPlan(
    run_id="night-1",
    detectors="file:///d",
    by_category={"cap": DETECTOR},
    max_pixels=1,
)


def _manifest(count: int) -> pa.Table:
    rows = [
        {"image_id": n, "image_uri": f"s3://a/cap/{n}", "image_etag": "e", "image_bytes": n, "category": "cap"}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def _scored(manifest: pa.Table, scores: list[float]) -> pa.Table:
    count = len(manifest)
    return assemble_staged(
        manifest,
        plan=PLAN,
        statuses=[Status.SCORED] * count,
        errors=[None] * count,
        scores=np.array(scores, float),
    )


def _publish(staged: pa.Table, manifest: pa.Table, results: str) -> Published:
    return publish.publish_rows(
        staged.to_batches(),
        manifest=manifest.to_batches,
        rows=len(manifest),
        plan=PLAN,
        folder=RunFolder(results, "night-1"),
        run_date=date(2026, 11, 21),
    )


def _reconciled(staged: pa.Table, manifest: pa.Table) -> pa.Table:
    with Scratch() as scratch:
        reconcile(scratch, staged.to_batches(), manifest=manifest.to_batches, rows=len(manifest), plan=PLAN)
        return pa.Table.from_batches(stream_in_order(scratch), schema=SCORES)


@settings(max_examples=40, deadline=None)
@given(came_back=st.lists(st.integers(0, 9), max_size=30))
@pytest.mark.slow
def test_whatever_came_back_every_manifest_row_is_one_row(came_back: list[int]) -> None:
    manifest = _manifest(10)
    staged = _scored(manifest, [1.0] * 10).take(pa.array(came_back, pa.int64()))
    rows = _reconciled(staged, manifest)
    by_size = dict(zip(rows["image_bytes"].to_pylist(), rows["status"].to_pylist(), strict=True))
    assert len(rows) == 10
    assert by_size == {n: Status.SCORED if n in came_back else Status.FAILED for n in range(10)}


def test_a_lost_row_says_so_and_keeps_what_is_known() -> None:
    (row,) = _reconciled(STAGED.empty_table(), _manifest(1)).to_pylist()
    assert row["error"].startswith("lost: ")
    assert (row["image_uri"], row["image_bytes"], row["detector_id"]) == ("s3://a/cap/0", 0, DETECTOR.detector_id)
    assert (row["score"], row["p_value"], row["is_anomaly"]) == (None, None, None)


def test_p_value_threshold_and_anomaly_agree() -> None:
    rows = _scored(_manifest(3), [0.5, 19.0, 19.5]).to_pylist()
    assert [row["p_value"] for row in rows] == [1.0, 2 / 20, 1 / 20]
    assert [row["is_anomaly"] for row in rows] == [False, False, True]
    assert {row["threshold"] for row in rows} == {19.0}


def test_a_row_can_be_read_alone() -> None:
    plan = PLAN.model_copy(update={"root": "s3://a"})
    rows = assemble_staged(
        _manifest(3),
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
        _manifest(1), plan=mute, statuses=[Status.SCORED], errors=[None], scores=np.array([9.0])
    ).to_pylist()
    assert (row["threshold"], row["is_anomaly"]) == (None, None)
    assert row["p_value"] is not None


def test_the_table_has_the_contract_and_publishing_again_overwrites(tmp_path: object) -> None:
    results, manifest = f"file://{tmp_path}", _manifest(5)
    for _ in range(2):
        published = _publish(_scored(manifest, [3.0, 1.0, 5.0, 2.0, 4.0]), manifest, results)
    files = published.files
    assert files == ("scores/run_date=2026-11-21/night-1-00000.parquet",)
    listed = [info.uri for info in storage.list_objects(RunFolder(results, "night-1").table)]
    assert listed == [uris.join(results, files[0])]
    written = pq.read_table(uris.split(listed[0])[2].join(["/", ""]), partitioning=None)
    assert written.schema.equals(SCORES, check_metadata=False)
    assert written.schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert written["score"].to_pylist() == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert published.tally.counts == {Status.SCORED: 5}


def test_publishing_again_leaves_no_file_of_the_earlier_try_behind(tmp_path: object) -> None:
    results, manifest = f"file://{tmp_path}", _manifest(2)
    folder = RunFolder(results, "night-1").partition(date(2026, 11, 21))
    for name in ("night-1-00001.parquet", "night-10-00000.parquet", "other-00001.parquet"):
        storage.write(uris.join(folder, name), b"")
    _publish(_scored(manifest, [1.0, 2.0]), manifest, results)
    assert sorted(info.uri.rsplit("/", 1)[1] for info in storage.list_objects(folder)) == [
        "night-1-00000.parquet",
        "night-10-00000.parquet",
        "other-00001.parquet",
    ]


def test_a_row_number_that_is_not_in_the_manifest_is_no_row(tmp_path: object) -> None:
    published = _publish(_scored(_manifest(4), [1.0] * 4), _manifest(2), f"file://{tmp_path}")
    assert published.tally.counts == {Status.SCORED: 2}


def test_rows_of_a_run_without_record_do_not_count(tmp_path: object) -> None:
    results, manifest = f"file://{tmp_path}", _manifest(2)
    published = _publish(_scored(manifest, [1.0, 2.0]), manifest, results)
    assert len(read_published(results, ["image_uri"])) == 0
    record = make_record(
        published,
        plan=PLAN,
        config={"false_alarm_rate": 0.05},
        listed=7,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        timings_s={},
        reported=Reported(),
    )
    write_record(record, RunFolder(results, "night-1"))
    assert read_published(results, ["image_uri"])["image_uri"].to_pylist() == ["s3://a/cap/1", "s3://a/cap/0"]
    found = read_record(RunFolder(results, "night-1"))
    assert found is not None
    assert (found["counts"]["scored"], found["already_scored"], found["listed"]) == (2, 5, 7)


@pytest.mark.parametrize(
    ("counts", "rate"), [({"scored": 8, "unreadable": 1, "failed": 1, "missing": 0}, 0.2), ({}, 0.0)]
)
def test_the_error_rate_counts_what_could_not_be_read_or_scored(counts: dict[str, int], rate: float) -> None:
    assert compute_error_rate(counts) == rate
