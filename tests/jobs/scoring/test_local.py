"""`jobs.score --local`: a small archive without Ray, with the rows that the cluster would give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import ray

from jobs.detectors.aliases import set_alias
from jobs.detectors.registry import put
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_published
from jobs.tables.schema import SCORES
from model.artifact import load_artifact, save_artifact
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration
from tests.support.training import build_training_config


@pytest.fixture
def config(drawn: Path, tmp_path: Path) -> ScoreConfig:
    """A request for a flat folder of three photos and a broken one, with an untrained detector."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, path in enumerate(sorted((drawn / "data" / "insulator" / "test" / "good").glob("*.jpg"))[:3]):
        shutil.copy(path, folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"<html>")
    detector = AttentDifferNet(build_training_config())
    calibration = Calibration(scores=tuple(float(score) for score in range(30)))
    detector_id = save_artifact(tmp_path / "artifact", detector, calibration=calibration, metrics={})
    registry = f"file://{tmp_path}/registry"
    put(registry, "pole", folder=tmp_path / "artifact")
    set_alias(registry, "pole", alias="champion", detector_id=detector_id)
    request = {"archive": str(folder), "detectors": registry, "results": str(tmp_path / "results"), "run_id": "n"}
    return ScoreConfig.model_validate(request | {"local": True, "category": "pole"})


def _refuse(*_: Any, **__: Any) -> None:
    pytest.fail("it starts Ray")


def test_a_flat_folder_is_scored_without_ray_as_the_loaded_detector_scores_its_files(
    config: ScoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", _refuse)
    monkeypatch.setattr(ray, "remote", _refuse)
    assert scoring.score_archive(config) == 0
    rows = {row["image_uri"]: row for row in read_published(config.results, SCORES.names).to_pylist()}
    assert [row["status"] for _, row in sorted(rows.items())] == ["scored"] * 3 + ["unreadable"]
    detector = load_artifact(tmp_path / "registry" / "pole", alias="champion")
    for uri, row in rows.items():
        if row["status"] == "scored":
            found = detector.score_file(uri.removeprefix("file://"))
            assert (found.score, found.p_value) == pytest.approx((row["score"], row["p_value"]), rel=1e-6)
            assert row["category"] == "pole"
    assert "3 scored, 1 unreadable" in capsys.readouterr().out
    assert scoring.score_archive(config.model_copy(update={"local": False})) == 0  # published: nothing to do
