"""`jobs.score --explain`: overlays and maps beside the table, written once, whatever becomes of a photo."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deltalake import DeltaTable
from PIL import Image
from safetensors.numpy import load

from jobs import storage
from jobs.detectors.registry import put, set_alias
from jobs.errors import StorageError
from jobs.explanation import run_maps
from jobs.explanation.table import append_maps, locate_file, read_maps
from jobs.results.known import read_rows
from jobs.scoring.config import ScoreConfig
from jobs.scoring.run import score_archive
from jobs.storage import uris
from jobs.tables.schema import MAPS, SCORES
from model.artifact import save_artifact
from model.detector import AttentDifferNet
from model.image import decode_image
from model.localization.fitting import fit_positions
from model.statistics.calibration import Calibration
from model.training.photos import InMemory
from tests.support.buckets import create_bucket
from tests.support.training import build_training_config


def _list_maps(config: ScoreConfig) -> list[dict[str, Any]]:
    table = DeltaTable(f"{config.results}/maps").to_pyarrow_table().cast(MAPS)
    return sorted(table.to_pylist(), key=lambda row: row["image_uri"])


def _ask(config: ScoreConfig, **changes: object) -> ScoreConfig:
    return config.model_copy(update={"explain": "top:2", **changes})


@pytest.mark.slow  # starts a process that decodes
def test_the_top_of_a_run_is_explained_once(
    local_config: ScoreConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score_archive(_ask(local_config)) == 0
    assert "maps:   2 photos explained: " in capsys.readouterr().out
    ranked = sorted(
        (row for row in read_rows(local_config.results, SCORES.names).to_pylist() if row["status"] == "scored"),
        key=lambda row: row["tail_rank"],
    )
    rows = _list_maps(local_config)
    assert [row["image_uri"] for row in rows] == sorted(row["image_uri"] for row in ranked[:2])
    for row in rows:
        assert row["overlay_uri"].startswith(f"{local_config.results}/overlays/run_id=n/")
        assert Image.open(io.BytesIO(storage.read(row["overlay_uri"]))).size == (512, 512)
        maps = load(storage.read(row["maps_uri"]))
        assert set(maps) == {"gradcam", "gradcam_without_attention"}
        assert all(one.dtype == np.float32 and one.ndim == 2 for one in maps.values())
        assert (row["shown"], row["run_id"], row["detector_id"]) == ("gradcam", "n", ranked[0]["detector_id"])
    monkeypatch.setattr(run_maps, "fetch_photos", lambda *_, **__: pytest.fail("fetched again"))
    assert score_archive(_ask(local_config)) == 0
    assert "maps:   0 photos explained, 2 by an earlier try" in capsys.readouterr().out
    assert _list_maps(local_config) == rows
    assert not list(storage.list_objects(f"{local_config.results}/staging"))


@pytest.mark.slow  # starts a process that decodes
def test_a_published_run_is_explained_later_and_more_of_it_each_time(local_config: ScoreConfig) -> None:
    assert score_archive(local_config) == 0
    assert not list(storage.list_objects(f"{local_config.results}/maps"))
    assert score_archive(_ask(local_config, explain="top:1")) == 0
    assert len(_list_maps(local_config)) == 1
    assert score_archive(_ask(local_config, explain="top:200")) == 0
    assert len({row["overlay_uri"] for row in _list_maps(local_config)}) == len(_list_maps(local_config)) == 3


@pytest.mark.slow  # starts a process that decodes
def test_a_photo_that_has_changed_or_gone_is_a_line_and_the_others_are_explained(
    local_config: ScoreConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_archive(local_config) == 0
    flat = Path(local_config.archive.removeprefix("file://"))
    (flat / "0.jpg").unlink()
    (flat / "1.jpg").write_bytes((flat / "2.jpg").read_bytes() + b"more")
    assert score_archive(_ask(local_config, explain="top:3")) == 0
    said = capsys.readouterr().out
    assert "maps:   1 photos explained" in said
    assert "2 photos could not be explained" in said
    assert "0.jpg: deleted" in said
    assert "1.jpg: changed" in said
    assert [row["image_uri"].rsplit("/", 1)[1] for row in _list_maps(local_config)] == ["2.jpg"]


def test_a_detector_that_is_gone_costs_its_photos_their_maps_alone(
    local_config: ScoreConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert score_archive(local_config) == 0
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # another cache of detectors
    shutil.rmtree(local_config.detectors.removeprefix("file://"))
    assert score_archive(_ask(local_config)) == 0
    said = capsys.readouterr().out
    assert "maps:   0 photos explained" in said
    assert "2 photos could not be explained" in said
    assert ": detector: " in said


@pytest.mark.slow  # starts a process that decodes
def test_a_try_that_was_cut_off_is_continued_and_nothing_is_there_twice(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(run_maps, "append_maps", fail)
    with pytest.raises(StorageError, match="away"):
        score_archive(_ask(local_config))
    before = {info.uri for info in storage.list_objects(f"{local_config.results}/overlays")}
    monkeypatch.undo()
    assert score_archive(_ask(local_config)) == 0
    assert {info.uri for info in storage.list_objects(f"{local_config.results}/overlays")} == before
    assert len(_list_maps(local_config)) == 2


def test_the_table_gives_a_run_its_own_photos(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path))
    assert read_maps(results, "n") == {}
    row = {"image_uri": "s3://a/b", "image_etag": "e", "box": None, "overlay_uri": "s3://r/o.jpg"}
    for run_id in ("n", "m"):
        append_maps(results, [{**row, "run_id": run_id}, {**row, "box": "1,2,3,4", "run_id": run_id}])
    found = read_maps(results, "n")
    assert set(found) == {("s3://a/b", "e", None), ("s3://a/b", "e", "1,2,3,4")}
    assert {one["run_id"] for one in found.values()} == {"n"}


def test_each_photo_bytes_and_box_has_a_file_of_its_own() -> None:
    rows = [
        {"image_uri": uri, "image_etag": etag, "box": box}
        for uri in ("s3://a/b", "s3://a/../c")
        for etag in (None, "e")
        for box in (None, "1,2,3,4")
    ]
    files = {locate_file("s3://r", "n", row, ending="jpg") for row in rows}
    assert len(files) == len(rows)
    assert all(file.startswith("s3://r/overlays/run_id=n/") and ".." not in file for file in files)


@pytest.mark.slow
def test_real_photos_get_maps_of_positions_and_their_place(
    shared: Path, local_config: ScoreConfig, tmp_path: Path
) -> None:
    tiles = shared / "data/mtd_full/tile"
    detector = AttentDifferNet(build_training_config(image_size=224, views=1)).eval()
    files = sorted((tiles / "train/good").glob("*.jpg"))[:10]
    fit_positions(detector, InMemory(torch.stack([decode_image(file.read_bytes(), size=224) for file in files])))
    calibration = Calibration(scores=tuple(float(score) for score in range(30)))
    detector_id = save_artifact(tmp_path / "placed", detector, calibration=calibration, metrics={})
    put(local_config.detectors, "pole", folder=tmp_path / "placed")
    set_alias(local_config.detectors, "pole", alias="champion", detector_id=detector_id)
    config = _ask(local_config, archive=uris.normalize(str(tiles / "test/blowhole")), explain="top:1", category="pole")
    assert score_archive(config) == 0
    (row,) = _list_maps(config)
    photo = Image.open(row["image_uri"].removeprefix("file://"))
    overlay = Image.open(io.BytesIO(storage.read(row["overlay_uri"])))
    assert row["shown"] == "positions"
    assert overlay.width / overlay.height == pytest.approx(photo.width / photo.height, rel=0.02)
    assert set(load(storage.read(row["maps_uri"]))) == {"positions", "gradcam", "gradcam_without_attention"}
    drawn = np.asarray(overlay).astype(int)
    is_coloured = drawn.max(2) - drawn.min(2) > 60  # the photo is grey
    assert is_coloured.sum() > 500


@pytest.mark.slow
def test_maps_of_a_run_lie_in_object_storage_beside_its_table(
    s3_environment: str | None, local_config: ScoreConfig
) -> None:
    config = _ask(local_config, results=f"{create_bucket(s3_environment)}/fleet")
    for _ in range(2):
        assert score_archive(config) == 0
        found = read_maps(config.results, "n")
        assert len(found) == 2
        assert all(Image.open(io.BytesIO(storage.read(row["overlay_uri"]))).format == "JPEG" for row in found.values())
    keys = [info.uri for info in storage.list_objects(f"{config.results}/overlays")]
    assert sorted(key.rsplit(".", 1)[1] for key in keys) == ["jpg", "jpg", "safetensors", "safetensors"]
