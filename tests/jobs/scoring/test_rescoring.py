"""New rows from stored raw scores: the same as a full rescoring gives, and nothing is fetched."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.archive.settled import KNOWN, DetectorIds, RetryPolicy, find_settled
from jobs.decoding.fetch import FetchDecode
from jobs.detectors import registry
from jobs.detectors.aliases import find_previous
from jobs.detectors.registry import RegisteredDetector
from jobs.results.commit import commit_slice
from jobs.results.known import read_latest, read_rows, stream_known
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.plan import PlannedDetector, ScoringPlan, plan_registered_detector
from jobs.scoring.record import compute_error_rate, count_fetched, read_record
from jobs.scoring.rescoring import rescore_stored
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.staged_rows import assemble_staged
from jobs.tables.schema import LISTED, MANIFEST, SCORES, Status
from jobs.tables.scratch import Scratch
from model.artifact import recalibrate_artifact, save_artifact
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration
from tests.support.training import build_training_config

DAY = date(2026, 11, 29)
LISTED_AT = datetime(2026, 11, 1, tzinfo=UTC)
COUNT = 400


def plan_night(
    run_id: str, *, seed: int = 0, rate: float | None = None, weights: str = "w" * 16, category: str = "cap"
) -> ScoringPlan:
    """Plans a detector whose calibration is drawn from ``seed``, and so is its id."""
    scores = np.random.default_rng(seed).normal(size=150)
    registered = RegisteredDetector(
        category, f"{seed:016x}", DetectorConfig(), Calibration(scores=tuple(scores)), weights
    )
    return ScoringPlan(
        run_id=run_id,
        detectors="d",
        by_category={category: plan_registered_detector(registered, rate)},
        max_pixels=1,
        root="s3://a",
    )


def list_photos(count: int = COUNT, *, etag: str = "e") -> pa.Table:
    """Lists photos of two categories; one has no detector."""
    rows = [
        {
            "image_id": n,
            "image_uri": f"s3://a/cap/{n:06d}",
            "image_etag": etag,
            "image_bytes": n,
            "last_modified": LISTED_AT,
            "category": "cap" if n % 10 else "none",
            "site": "line-1",
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def score(manifest: pa.Table, plan: ScoringPlan) -> pa.Table:
    """Makes rows as a run would; every seventh photo is broken."""
    scores = np.random.default_rng(1).normal(0.3, 2, size=len(manifest))
    statuses = [
        Status.NO_DETECTOR if not n % 10 else Status.UNREADABLE if not n % 7 else Status.SCORED
        for n in range(len(manifest))
    ]
    errors = [None if status == Status.SCORED else f"{status}: x" for status in statuses]
    return assemble_staged(manifest, plan=plan, statuses=statuses, errors=errors, scores=scores)


def commit_night(results: str, plan: ScoringPlan, manifest: pa.Table) -> None:
    """Commits the rows of a run that scored all photos."""
    rows = score(manifest, plan).select(SCORES.names)
    commit_slice(results, rows.to_batches(), run_id=plan.run_id, slice_number=0, run_date=DAY, known_since=-1)


def rescore(results: str, plan: ScoringPlan, manifest: pa.Table, *, is_live: bool = True) -> tuple[int, int]:
    """Returns how many photos a run rescored from the table, and how many it would still fetch."""
    with Scratch() as scratch:
        scratch.insert("listed", manifest.select(LISTED.names).to_batches(), schema=LISTED)
        scratch.execute("CREATE TABLE left_out (row BIGINT)")
        scratch.execute("CREATE TABLE retried (row BIGINT, attempts INTEGER, last_at TIMESTAMPTZ)")
        version, known = stream_known(results, KNOWN.names)
        wanted = {name: identify(one) for name, one in plan.by_category.items()}
        find_settled(scratch, known, wanted, retries=RetryPolicy(3, 1.0), is_live=is_live)
        count = rescore_stored(scratch, plan, results=results, version=version, run_date=DAY)
        ((left,),) = scratch.query("SELECT count(*) FROM listed ANTI JOIN left_out ON listed.rowid = left_out.row")
    return count, int(left)


def identify(one: PlannedDetector) -> DetectorIds:
    """Returns what tells a planned detector's rows."""
    return DetectorIds(one.detector_id, one.weights_id, one.false_alarm_rate, one.confidence)


def sort_rows(rows: pa.Table, run_id: str) -> list[dict[str, Any]]:
    """Returns the scored rows of a run but for when they were made, by photo."""
    mine = [row for row in rows.to_pylist() if row["run_id"] == run_id and row["status"] == "scored"]
    for row in mine:
        del row["scored_at"], row["fetched_at"]
    return sorted(mine, key=lambda row: str(row["image_uri"]))


def test_boxes_of_one_photo_are_rescored_and_settled_each_by_itself(tmp_path: Path) -> None:
    results, photos = f"file://{tmp_path}", list_photos(20)
    boxes = [photos.set_column(8, MANIFEST.field("box"), pa.array([box] * 20)) for box in ("1,2,3,4", "5,6,7,8")]
    known, new = pa.concat_tables(boxes), photos.set_column(8, MANIFEST.field("box"), pa.array(["9,9,9,9"] * 20))
    commit_night(results, plan_night("night-1"), known)
    scored = len(sort_rows(read_rows(results, SCORES.names), "night-1"))
    count, left = rescore(results, plan_night("night-2", seed=5), pa.concat_tables([known, new, photos]))
    assert (count, left) == (scored, 40)
    assert rescore(results, plan_night("night-3", seed=5), known) == (0, 0)


def test_photos_that_got_their_earlier_bytes_back_get_their_row_back_without_a_fetch(tmp_path: Path) -> None:
    """As after an upload that was cut off and done again: the entity tag of a bucket is that of the bytes."""
    results, whole, cut = f"file://{tmp_path}", list_photos(20, etag="whole"), list_photos(20, etag="cut")
    commit_night(results, plan_night("night-1"), whole)
    commit_night(results, plan_night("night-2"), cut)
    scored = len(sort_rows(read_rows(results, SCORES.names), "night-1"))
    count, left = rescore(results, plan_night("night-3"), whole)
    assert (count, left) == (scored, 20 - scored)  # what has no score is tried again, once
    latest = read_latest(results, ["status", "image_etag"]).to_pylist()
    assert {row["image_etag"] for row in latest if row["status"] == "scored"} == {"whole"}
    assert rescore(results, plan_night("night-4"), whole) == (0, 20 - scored)


@pytest.mark.parametrize(("modified", "expected"), [(LISTED_AT, 0), (datetime(2100, 1, 1, tzinfo=UTC), 1)])
def test_an_old_list_does_not_take_back_what_a_newer_one_has_seen(
    tmp_path: Path, modified: datetime, expected: int
) -> None:
    results, photos = f"file://{tmp_path}", list_photos(2).slice(1)
    for run_id, etag in (("night-1", "old"), ("night-2", "new")):
        tagged = photos.set_column(2, MANIFEST.field("image_etag"), pa.array([etag]))
        commit_night_of(results, plan_night(run_id), tagged, Status.SCORED)
    place = MANIFEST.get_field_index("last_modified")
    old = photos.set_column(2, MANIFEST.field("image_etag"), pa.array(["old"]))
    old = old.set_column(place, MANIFEST.field("last_modified"), pa.array([modified], MANIFEST.field(place).type))
    assert rescore(results, plan_night("night-3"), old, is_live=False) == (expected, 0)


def test_a_photo_that_was_missing_and_is_back_gets_its_row_back_without_a_fetch(tmp_path: Path) -> None:
    results, photos = f"file://{tmp_path}", list_photos(2).slice(1)
    commit_night_of(results, plan_night("night-1"), photos, Status.SCORED)
    commit_night_of(results, plan_night("night-2"), photos, Status.MISSING)
    assert rescore(results, plan_night("night-3"), photos, is_live=False) == (0, 0)
    assert rescore(results, plan_night("night-3"), photos) == (1, 0)
    assert read_latest(results, ["status"])["status"].to_pylist() == ["scored"]
    assert rescore(results, plan_night("night-4"), photos) == (0, 0)


def commit_night_of(results: str, plan: ScoringPlan, manifest: pa.Table, status: Status) -> None:
    """Commits a row of one status of each photo."""
    count = len(manifest)
    errors = [None if status == Status.SCORED else "gone: 404"] * count
    rows = assemble_staged(manifest, plan=plan, statuses=[status] * count, errors=errors, scores=np.ones(count))
    batches, known_since = rows.select(SCORES.names).to_batches(), stream_known(results, KNOWN.names)[0]
    commit_slice(results, batches, run_id=plan.run_id, slice_number=0, run_date=DAY, known_since=known_since)


@pytest.mark.parametrize(
    "later",
    [{"seed": 5}, {"seed": 0, "rate": 0.2}, {"seed": 5, "rate": 0.01}],
    ids=["recalibrated", "another rate", "both"],
)
def test_stored_scores_give_the_rows_of_a_full_rescoring(tmp_path: Any, later: dict[str, Any]) -> None:
    results, manifest = f"file://{tmp_path}", list_photos()
    commit_night(results, plan_night("night-1"), manifest)
    plan = plan_night("night-2", **later)
    expected = sort_rows(score(manifest, plan).select(SCORES.names), "night-2")
    count, left = rescore(results, plan, manifest)
    assert (count, left) == (len(expected), 0)
    assert sort_rows(read_rows(results, SCORES.names), "night-2") == expected
    assert len(expected) == 308


def test_the_latest_row_of_each_photo_is_the_new_one_and_remembers_when_its_bytes_came(tmp_path: Any) -> None:
    results, manifest = f"file://{tmp_path}", list_photos(50)
    commit_night(results, plan_night("night-1"), manifest)
    before = {row["image_uri"]: row for row in read_rows(results, SCORES.names).to_pylist()}
    rescore(results, plan_night("night-2", seed=5), manifest)
    rows = read_latest(results, SCORES.names).to_pylist()
    assert len(rows) == 50
    for row in rows:
        assert row["run_id"] == ("night-2" if row["status"] == "scored" else "night-1")
        if row["status"] == "scored":
            assert row["fetched_at"] == before[row["image_uri"]]["scored_at"] < row["scored_at"]


def test_rows_of_an_earlier_version_get_the_new_columns_without_a_fetch(tmp_path: Path) -> None:
    results, manifest, plan = f"file://{tmp_path}", list_photos(50), plan_night("night-2")
    rows = score(manifest, plan_night("night-1")).select(SCORES.names)
    for name in SCORES.names[SCORES.get_field_index("schema_version") + 1 :]:
        place = SCORES.get_field_index(name)
        rows = rows.set_column(place, SCORES.field(name), pa.nulls(len(rows), SCORES.field(name).type))
    commit_slice(results, rows.to_batches(), run_id="night-1", slice_number=0, run_date=DAY, known_since=-1)
    count, left = rescore(results, plan, manifest)
    new = sort_rows(read_rows(results, SCORES.names), "night-2")
    assert (count, left) == (len(new), 0)
    assert new == sort_rows(score(manifest, plan).select(SCORES.names), "night-2")


def test_rescoring_again_adds_nothing(tmp_path: Any) -> None:
    results, manifest = f"file://{tmp_path}", list_photos(50)
    commit_night(results, plan_night("night-1"), manifest)
    plan = plan_night("night-2", seed=5)
    first = rescore(results, plan, manifest)
    assert rescore(results, plan, manifest) == (0, 0)
    assert len(read_rows(results, ["image_uri"])) == 50 + first[0]


def test_a_try_after_a_kill_rescores_what_has_come_since(tmp_path: Any) -> None:
    results, plan = f"file://{tmp_path}", plan_night("night-2", seed=5)
    commit_night(results, plan_night("night-1"), list_photos(50))
    first = rescore(results, plan, list_photos(20))
    second = rescore(results, plan, list_photos(50))
    assert first[0] + second[0] == sum(n % 10 > 0 and n % 7 > 0 for n in range(50))


@pytest.mark.parametrize(
    ("plan", "etag", "left"),
    [
        (plan_night("night-2", seed=5, weights="x" * 16), "e", 45),
        (plan_night("night-2", seed=5), "changed", 50),
    ],
    ids=["other weights", "other bytes"],
)
def test_what_the_stored_score_does_not_speak_of_is_fetched(
    tmp_path: Any, plan: ScoringPlan, etag: str, left: int
) -> None:
    results, manifest = f"file://{tmp_path}", list_photos(50)
    commit_night(results, plan_night("night-1"), manifest)
    assert rescore(results, plan, list_photos(50, etag=etag)) == (0, left)


@pytest.fixture
def recalibrated(local_config: ScoreConfig, tmp_path: Path) -> ScoreConfig:
    """A request after a night, whose champion has another calibration since."""
    assert scoring.score_archive(local_config) == 0
    other = Calibration(scores=tuple(np.linspace(0.5, 3, 90)))
    detector_id = recalibrate_artifact(tmp_path / "new", tmp_path / "artifact", calibration=other, metrics={})
    registry.put(local_config.detectors, "pole", folder=tmp_path / "new")
    registry.set_alias(local_config.detectors, "pole", alias="champion", detector_id=detector_id)
    return local_config.model_copy(update={"run_id": "later"})


def test_a_run_after_a_recalibration_fetches_nothing_and_gives_what_a_full_rescoring_gives(
    recalibrated: ScoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = recalibrated.model_copy(update={"results": f"file://{tmp_path}/full", "run_id": "later"})
    assert scoring.score_archive(full) == 0
    monkeypatch.setattr(FetchDecode, "__call__", lambda *_: pytest.fail("it fetches"))
    capsys.readouterr()
    assert scoring.score_archive(recalibrated) == 0
    assert ", 3 rated anew from their stored scores, without a fetch" in capsys.readouterr().out
    found = sort_rows(read_rows(recalibrated.results, SCORES.names), "later")
    assert found == sort_rows(read_rows(full.results, SCORES.names), "later")
    assert len(found) == 3
    record = read_record(RunFolder(recalibrated.results, "later"))
    assert record is not None
    assert (record["rescored"], record["counts"]["scored"], record["already_scored"]) == (3, 3, 1)
    assert scoring.score_archive(recalibrated.model_copy(update={"run_id": "after"})) == 0
    assert len(read_rows(recalibrated.results, ["image_uri"])) == 4 + 3


def test_a_run_with_another_false_alarm_rate_fetches_nothing(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scoring.score_archive(local_config) == 0
    monkeypatch.setattr(FetchDecode, "__call__", lambda *_: pytest.fail("it fetches"))
    assert scoring.score_archive(local_config.model_copy(update={"run_id": "later", "false_alarm_rate": 0.5})) == 0
    rates = {row["false_alarm_rate"] for row in sort_rows(read_rows(local_config.results, SCORES.names), "later")}
    assert rates == {0.5}


def test_rescore_fetches_all_the_same(recalibrated: ScoreConfig) -> None:
    assert scoring.score_archive(recalibrated.model_copy(update={"rescore": True})) == 0
    record = read_record(RunFolder(recalibrated.results, "later"))
    assert record is not None
    assert (record["rescored"], record["counts"]["scored"], record["counts"]["unreadable"]) == (0, 3, 1)


def test_rows_from_stored_scores_do_not_thin_out_what_could_not_be_read() -> None:
    counts = {"scored": 1000, "unreadable": 1}
    assert compute_error_rate(count_fetched(counts, 999)) == 0.5


def test_only_photos_of_this_archive_are_rescored(tmp_path: Any) -> None:
    results = f"file://{tmp_path}"
    commit_night(results, plan_night("night-1"), list_photos(50))
    assert rescore(results, plan_night("night-2", seed=5), list_photos(2)) == (1, 0)


def test_a_photo_whose_category_has_another_name_now_gets_it(tmp_path: Any) -> None:
    results, manifest = f"file://{tmp_path}", list_photos(20)
    commit_night(results, plan_night("night-1"), manifest)
    names = pa.array(["lid" if name == "cap" else name for name in manifest["category"].to_pylist()])
    renamed = manifest.set_column(manifest.schema.get_field_index("category"), MANIFEST.field("category"), names)
    count, _ = rescore(results, plan_night("night-2", seed=5, category="lid"), renamed)
    new = [row for row in read_rows(results, ["category", "run_id"]).to_pylist() if row["run_id"] == "night-2"]
    assert {row["category"] for row in new} == {"lid"}
    assert len(new) == count > 0


def find_latest_detectors(config: ScoreConfig) -> set[str]:
    """Returns the detectors of the scored photos' newest rows."""
    rows = read_latest(config.results, ["status", "detector_id"]).to_pylist()
    return {row["detector_id"] for row in rows if row["status"] == "scored"}


@pytest.fixture
def rolled_back(local_config: ScoreConfig, tmp_path: Path) -> ScoreConfig:
    """A request after two nights: another detector was promoted before the second, and is rolled back since."""
    assert scoring.score_archive(local_config) == 0
    other = AttentDifferNet(build_training_config(seed=7))
    calibration = Calibration(scores=tuple(float(score) for score in range(30)))
    detector_id = save_artifact(tmp_path / "other", other, calibration=calibration, metrics={})
    for name in ("champion", "challenger"):
        registry.put(local_config.detectors, "pole", folder=tmp_path / "other")
        registry.set_alias(local_config.detectors, "pole", alias=name, detector_id=detector_id)
    assert scoring.score_archive(local_config.model_copy(update={"run_id": "night-2"})) == 0
    assert find_latest_detectors(local_config) == {detector_id}
    now, before = find_previous(local_config.detectors, "pole", alias="champion")
    registry.set_alias(
        local_config.detectors, "pole", alias="champion", detector_id=before, expected=now, action="rollback"
    )
    return local_config.model_copy(update={"run_id": "night-3"})


def test_after_a_rollback_the_latest_rows_are_of_the_champion_without_a_fetch(
    rolled_back: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sort_rows(read_rows(rolled_back.results, SCORES.names), "n")
    monkeypatch.setattr(FetchDecode, "__call__", lambda *_: pytest.fail("it fetches"))
    assert scoring.score_archive(rolled_back) == 0
    again = sort_rows(read_rows(rolled_back.results, SCORES.names), "night-3")
    assert again == [row | {"run_id": "night-3"} for row in first]
    assert find_latest_detectors(rolled_back) == {first[0]["detector_id"]}


def test_two_aliases_over_one_archive_do_not_write_it_anew_in_turns(rolled_back: ScoreConfig) -> None:
    assert scoring.score_archive(rolled_back) == 0
    rows = len(read_rows(rolled_back.results, ["image_uri"]))
    for night in ("night-4", "night-5"):
        for alias in ("challenger", "champion"):
            request = {"run_id": f"{night}-{alias}", "alias": alias}
            assert scoring.score_archive(rolled_back.model_copy(update=request)) == 0
    assert len(read_rows(rolled_back.results, ["image_uri"])) == rows
