"""A registered detector in a program of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.detectors.aliases import set_alias
from jobs.detectors.loading import load_detector
from jobs.detectors.registry import put
from jobs.errors import RequestError
from model.artifact import save_artifact
from model.detector import AttentDifferNet
from tests.support.training import build_training_config


def test_the_champion_is_loaded_by_its_category(tmp_path: Path) -> None:
    detector = AttentDifferNet(build_training_config())
    detector_id = save_artifact(tmp_path / "artifact", detector, calibration=None, metrics={})
    put(f"file://{tmp_path}/registry", "cap", folder=tmp_path / "artifact")
    with pytest.raises(RequestError, match=r"cap has no alias 'champion' in .*; it has none"):
        load_detector(str(tmp_path / "registry"), "cap")
    set_alias(f"file://{tmp_path}/registry", "cap", alias="champion", detector_id=detector_id)
    assert load_detector(str(tmp_path / "registry"), "cap").detector_id == detector_id
