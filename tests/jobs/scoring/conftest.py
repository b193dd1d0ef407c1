"""A small archive that is scored without Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.detectors.aliases import set_alias
from jobs.detectors.registry import put
from jobs.scoring.config import ScoreConfig
from model.artifact import save_artifact
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration
from tests.support.training import build_training_config


@pytest.fixture
def local_config(drawn: Path, tmp_path: Path) -> ScoreConfig:
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
