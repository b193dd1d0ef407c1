"""The main job from archive to table: every object one row, nothing twice, nothing lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.benchmarks import synthetic_fleet
from jobs.benchmarks.null_pipeline import score_with_null
from jobs.cluster.telemetry import LocalTelemetry
from jobs.decoding.fetch import FetchDecode
from jobs.detectors import node_cache, registry
from jobs.errors import MissingBucketError, RequestError
from jobs.results.known import read_rows
from jobs.scoring import preparation, staging
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.plan import ScoringPlan, plan_detectors
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.stage import ScoreImages
from jobs.storage import uris
from jobs.tables.schema import SCORES
from tests.support.bad_objects import bad_objects
from tests.support.buckets import create_bucket


def _config(archive: str, detectors: str, results: str, run_id: str, **more: object) -> ScoreConfig:
    request = {
        "archive": archive,
        "detectors": detectors,
        "results": results,
        "run_id": run_id,
        "max_error_rate": 1.0,
        "scoring": {"actors": 1},
    }
    return ScoreConfig.model_validate(request | more)


def _rows(results: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = read_rows(results, SCORES.names).to_pylist()
    return rows


def _copy(folder: Path, place: str, *, most: int | None = None) -> list[str]:
    """Uploads the photos of a folder, or ``most`` of them from all of it; returns their URIs."""
    photos = sorted(folder.rglob("*.jpg"))
    some = photos[:: max(1, len(photos) // most)][:most] if most else photos
    targets = {uris.join(place, *path.relative_to(folder).parts): path for path in some}
    for target, path in targets.items():
        storage.write(target, path.read_bytes())
    return list(targets)


@dataclass(frozen=True)
class Published:
    """A bucket with an archive on the S3 server and one published run over it."""

    bucket: str
    config: ScoreConfig
    exit_code: int
    said: str


@pytest.fixture(scope="module")
def published(s3_environment: str | None, drawn: Path, detectors: str) -> Published:
    """The drawn archive with its broken files, scored once as run night-1."""
    bucket = create_bucket(s3_environment)
    _copy(drawn / "archive", f"{bucket}/archive")
    config = _config(f"{bucket}/archive", detectors, f"{bucket}/results", "night-1")
    said = io.StringIO()
    with redirect_stdout(said):
        exit_code = scoring.score_archive(config)
    return Published(bucket, config, exit_code, said.getvalue())


@pytest.fixture
def archive(drawn: Path, bucket: str) -> str:
    """Three good photos on the S3 server."""
    for path in sorted((drawn / "data" / "insulator" / "test" / "good").iterdir())[:3]:
        storage.write(f"{bucket}/archive/insulator/{path.name}", path.read_bytes())
    return f"{bucket}/archive"


def test_a_run_gives_one_row_per_object_and_a_summary(published: Published) -> None:
    assert published.exit_code == 0
    rows = [row for row in _rows(f"{published.bucket}/results") if row["run_id"] == "night-1"]
    listed = sorted(info.uri for info in storage.list_objects(f"{published.bucket}/archive"))
    assert sorted(str(row["image_uri"]) for row in rows) == [uri for uri in listed if "line-99" not in uri]
    assert Counter(row["status"] for row in rows) == {"scored": 36, "unreadable": 5}
    assert all((row["error"] is None) == (row["status"] == "scored") for row in rows)
    assert "scoring: 41/41 photos" in published.said
    assert "run night-1: 36 scored, 5 unreadable" in published.said
    assert sum(line.startswith(("  0.", "  1.")) for line in published.said.splitlines()) == 10
    assert f"table:  {published.bucket}/results/scores" in published.said


def test_the_record_says_what_ran(published: Published, detectors: str) -> None:
    record = read_record(RunFolder(f"{published.bucket}/results", "night-1"))
    assert record is not None
    assert record["counts"] == {
        "scored": 36,
        "unreadable": 5,
        "missing": 0,
        "no_detector": 0,
        "not_a_photo": 0,
        "failed": 0,
        "deleted": 0,
    }
    assert record["config"]["false_alarm_rate"] is None
    champion = registry.read_aliases(detectors, "insulator")["champion"]
    assert record["detectors"] == {"insulator": champion}
    assert {"ray", "torch", "python"} <= record["versions"].keys()
    assert {"listing", "scoring", "publishing", "to_first_batch"} <= record["timings_s"].keys()
    assert list(storage.list_objects(f"{published.bucket}/results/staging/night-1")) == []


def test_the_same_run_id_again_rewrites_nothing(published: Published) -> None:
    before = list(storage.list_objects(published.config.results))
    assert scoring.score_archive(published.config) == 0
    assert list(storage.list_objects(published.config.results)) == before


def test_more_unreadable_rows_than_allowed_exit_3_and_say_so(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scoring.score_archive(published.config.model_copy(update={"max_error_rate": 5 / 41})) == 0
    assert "alarm" not in capsys.readouterr().err
    assert scoring.score_archive(published.config.model_copy(update={"max_error_rate": 4 / 41})) == 3
    assert "alarm: 5 of 41 rows are unreadable or failed: 12.20%, and --max-error-rate" in capsys.readouterr().err


def test_a_run_id_belongs_to_one_request(published: Published) -> None:
    with pytest.raises(RequestError, match=r"false_alarm_rate was None and is now 0\.2"):
        scoring.score_archive(published.config.model_copy(update={"false_alarm_rate": 0.2}))


def test_the_table_answers_sql_from_the_object_store_s_copy(published: Published, tmp_path: Path) -> None:
    for info in storage.list_objects(f"{published.bucket}/results/scores"):
        place = tmp_path / info.uri.split("/results/", 1)[1]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(storage.read(info.uri))
    query = f"SELECT count(*), count(score), min(run_date)::VARCHAR FROM read_parquet('{tmp_path}/scores/**/*.parquet')"
    record = read_record(RunFolder(published.config.results, "night-1"))
    assert record is not None
    assert duckdb.sql(query + " WHERE run_id = 'night-1'").fetchall() == [(41, 36, record["started_at"][:10])]


def test_a_later_run_scores_only_what_is_new_or_changed(published: Published, drawn: Path) -> None:
    results, config = published.config.results, published.config
    scoring.score_archive(config.model_copy(update={"run_id": "night-2"}))
    record = read_record(RunFolder(results, "night-2"))
    assert record is not None
    assert (sum(record["counts"].values()), record["already_scored"], record["slices"]) == (0, 41, 0)
    first, second, *_ = sorted((drawn / "data" / "insulator" / "test" / "rust").glob("*.jpg"))
    new = f"{config.archive}/insulator/line-99/2026-11-21/NEW.jpg"
    changed = str(next(row["image_uri"] for row in _rows(results) if row["status"] == "scored"))
    storage.write(new, first.read_bytes() + b"new")
    storage.write(changed, second.read_bytes() + b"changed")
    scoring.score_archive(config.model_copy(update={"run_id": "night-3"}))
    assert {row["image_uri"] for row in _rows(results) if row["run_id"] == "night-3"} == {new, changed}
    assert Counter(row["image_uri"] for row in _rows(results))[changed] == 2


def test_a_list_without_entity_tags_is_scored_once_and_again_when_a_photo_s_size_changes(
    archive: str, detectors: str, bucket: str, tmp_path: Path
) -> None:
    found = list(storage.list_objects(archive))
    known, results = {info.uri: info.etag for info in found}, f"{bucket}/results"
    request = tmp_path / "list.csv"
    config = _config(f"file://{request}", detectors, results, "night-1", key_pattern="[^/]+/(?P<category>[^/]+)/")
    request.write_text("uri\n" + "\n".join([*known, *known, f"{archive}/insulator/gone.jpg"]))
    scoring.score_archive(config)
    rows = {row["image_uri"]: row for row in _rows(results)}
    assert {uri: row["image_etag"] for uri, row in rows.items() if row["status"] == "scored"} == known
    assert {rows[info.uri]["image_bytes"] for info in found} == {info.size_bytes for info in found}
    assert Counter(row["status"] for row in _rows(results)) == {"scored": 3, "missing": 1}

    first, *others = found
    sizes = {first.uri: first.size_bytes + 1} | {info.uri: info.size_bytes for info in others}
    request.write_text("image_uri,image_bytes\n" + "\n".join(f"{uri},{size}" for uri, size in sizes.items()))
    scoring.score_archive(config.model_copy(update={"run_id": "night-2"}))
    assert [row["image_uri"] for row in _rows(results) if row["run_id"] == "night-2"] == [first.uri]


def test_thousands_of_objects_come_through_the_null_pipeline_in_few_files(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = f"file://{tmp_path}/results"
    synthetic_fleet.register_null_detectors(f"file://{tmp_path}/detectors")
    synthetic_fleet.write_list(tmp_path / "archive.parquet", 5000)
    synthetic_fleet.publish_earlier_run(results, 5000, settled=1000)
    staged: list[list[storage.ObjectInfo]] = []
    monkeypatch.setattr(staging, "choose_file_rows", lambda rows: rows // 4)
    monkeypatch.setattr(storage, "delete_tree", lambda uri: staged.append(list(storage.list_objects(f"{uri}/rows"))))
    config = _config(f"file://{tmp_path}/archive.parquet", f"file://{tmp_path}/detectors", results, "night-1")
    assert scoring.score_archive(config, pipeline=score_with_null) == 0
    rows = [row for row in _rows(results) if row["run_id"] == "night-1"]
    assert len({row["image_uri"] for row in rows}) == len(rows) == 4000
    assert {row["status"] for row in rows} == {"scored"}
    assert 1 <= len(staged[-1]) <= 4


def test_objects_that_cannot_be_scored_say_why(archive: str, detectors: str, bucket: str) -> None:
    storage.write(f"{archive}/vibration_damper/x.jpg", b"never read")
    storage.write(f"{archive}/loose.jpg", b"never read")
    config = _config(archive, detectors, f"{bucket}/results", "night-1")
    preparation.prepare_run(config, RunFolder(config.results, config.run_id))
    deleted, replaced, _ = [info.uri for info in storage.list_objects(f"{archive}/insulator")]
    _delete(deleted)
    storage.write(replaced, b"other bytes")
    scoring.score_archive(config)
    found = {row["image_uri"]: (row["status"], row["error"]) for row in _rows(f"{bucket}/results") if row["error"]}
    assert found == {
        f"{archive}/vibration_damper/x.jpg": ("no_detector", "no_detector: no detector for this category"),
        f"{archive}/loose.jpg": ("no_detector", "no_detector: the key does not match --key-pattern"),
        deleted: ("missing", "deleted: deleted after it was listed, or a list names it wrongly"),
        replaced: ("missing", "changed: replaced after it was listed; the next run scores it"),
    }


def _delete(uri: str) -> None:
    import boto3

    _, name, key = uris.split(uri)
    boto3.client("s3").delete_object(Bucket=name, Key=key)


def test_an_archive_without_any_known_category_is_refused(detectors: str, bucket: str) -> None:
    storage.write(f"{bucket}/archive/damper/x.jpg", b"x")
    with pytest.raises(RequestError, match="no category of the archive"):
        scoring.score_archive(_config(f"{bucket}/archive", detectors, f"{bucket}/results", "night-1"))


def test_a_detector_without_calibration_is_refused(archive: str, detectors: str, bucket: str, tmp_path: Path) -> None:
    detector_id = registry.read_aliases(detectors, "insulator")["champion"]
    folder = tmp_path / "copy"
    node_cache.download(detectors, "insulator", detector_id=detector_id, folder=folder)
    (folder / "calibration.json").write_text("null")
    other = f"file://{tmp_path}/registry"
    registry.set_alias(
        other, "insulator", alias="champion", detector_id=registry.put(other, "insulator", folder=folder)
    )
    with pytest.raises(RequestError, match="has no calibration"):
        scoring.score_archive(_config(archive, other, f"{bucket}/results", "night-1"))


def test_scores_do_not_depend_on_how_photos_are_batched(drawn: Path, detectors: str) -> None:
    listing = list_archive(uris.normalize(str(drawn / "archive")))
    plan = ScoringPlan(
        run_id="r",
        detectors=detectors,
        by_category=plan_detectors(detectors, ["insulator"], alias="champion", false_alarm_rate=0.05),
        max_pixels=10**8,
    )
    decoded = FetchDecode(image_sizes={"insulator": 128}, max_pixels=10**8, concurrency=4)(listing)
    telemetry = LocalTelemetry()
    stage = ScoreImages(plan=plan, cache_bytes=1, telemetry=telemetry, device="cpu")
    whole = stage(decoded)
    pieces = pa.concat_tables([stage(decoded.slice(start, 3)) for start in range(0, len(decoded), 3)])
    assert pieces["status"] == whole["status"]
    assert telemetry.reported.counts == {"scored": 72, "unreadable": 10}
    # The convolutions see equal chunks either way; the flow's matmuls may sum in another order.
    np.testing.assert_allclose(_numbers(pieces), _numbers(whole), rtol=1e-5)


def _numbers(rows: pa.Table) -> np.ndarray:
    return rows["score"].drop_null().to_numpy()


@pytest.mark.parametrize("field", ["archive", "detectors", "results"])
def test_each_missing_bucket_is_a_wrong_request(field: str, archive: str, detectors: str, tmp_path: Path) -> None:
    places = {"archive": archive, "detectors": detectors, "results": str(tmp_path)} | {field: "s3://no-such-bucket/x"}
    with pytest.raises(MissingBucketError, match="bucket of s3://no-such-bucket/x"):
        scoring.score_archive(_config(**places, run_id="x"))


def test_a_missing_bucket_exits_2_with_one_line_before_any_cluster_work(bucket: str, tmp_path: Path) -> None:
    argv = [
        "--archive",
        "s3://no-such-bucket/x",
        "--detectors",
        str(tmp_path),
        "--results",
        str(tmp_path),
        "--run-id",
        "x",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.score", *argv],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"RAY_ADDRESS": "203.0.113.1:1"},
    )
    assert done.returncode == 2
    assert done.stderr == "error: bucket of s3://no-such-bucket/x does not exist: create it or correct the name\n"


def test_bad_objects_of_every_kind_among_real_photos(
    cluster: str, shared: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The issue's end-to-end case: train on real photos, score real photos and every kind of bad object, all on S3."""
    from jobs.training import run as training
    from jobs.training.config import TrainConfig
    from tests.support.buckets import deny_reading
    from tests.support.training import REAL_TRAINING

    photos = shared / "data"
    _copy(photos / "cplid_win" / "insulator" / "train", f"{bucket}/data/insulator/train", most=60)
    storage.write(
        f"{bucket}/weights.safetensors", (shared / "weights" / "bvlc_alexnet_features.safetensors").read_bytes()
    )
    request = REAL_TRAINING | {"data": f"{bucket}/data", "category": "insulator", "detectors": f"{bucket}/detectors"}
    request["detector"] = REAL_TRAINING["detector"] | {"weights": f"{bucket}/weights.safetensors"}
    assert training.train_detectors(TrainConfig.model_validate(request)) == 0

    good = _copy(photos / "cplid_win" / "insulator" / "test", f"{bucket}/archive/insulator", most=40)
    good += _copy(photos / "uav_archive" / "insulator", f"{bucket}/archive/insulator/uav", most=20)
    expected: dict[str, tuple[str, str | None]] = dict.fromkeys(good, ("scored", None))
    for item in bad_objects(prefix="insulator/bad/"):
        storage_put(f"{bucket}/archive/{item.key}", item.data)
        is_foreign = item.key.endswith((".pdf", ".zip", ".svg", ".eps", ".mp4", ".psd", ".ico", ".7z", ".npy"))
        status = "not_a_photo" if is_foreign and item.code else item.status
        expected[f"{bucket}/archive/{item.key}"] = (status, item.code)
    denied, deleted = f"{bucket}/archive/insulator/denied.jpg", f"{bucket}/archive/insulator/deleted.jpg"
    for uri, outcome in ((denied, ("unreadable", "access_denied")), (deleted, ("missing", "deleted"))):
        storage.write(uri, Path(next((photos / "uav_archive" / "insulator").glob("*.jpg"))).read_bytes())
        expected[uri] = outcome
    deny_reading(bucket, "archive/insulator/denied.jpg")
    more = {"max_error_rate": 0.01, "scoring": {"actors": 2}}
    config = _config(f"{bucket}/archive", f"{bucket}/detectors", f"{bucket}/results", "night-1", **more)
    preparation.prepare_run(config, RunFolder(config.results, config.run_id))
    _delete(deleted)

    assert scoring.score_archive(config) == 3
    rows = _rows(f"{bucket}/results")
    assert len(rows) == len(expected)
    found = {
        row["image_uri"]: (row["status"], str(row["error"]).split(":", 1)[0] if row["error"] else None) for row in rows
    }
    assert found == expected
    assert all(len(str(row["error"]).split(": ", 1)[1]) > 10 for row in rows if row["error"])
    assert pa.table({"p": [row["p_value"] for row in rows if row["status"] == "scored"]}).column("p").null_count == 0
    print(capsys.readouterr().out)


def storage_put(uri: str, data: bytes) -> None:
    """Puts any key, also those that obstore refuses."""
    import boto3

    _, name, key = uris.split(uri)
    boto3.client("s3").put_object(Bucket=name, Key=key, Body=data)
