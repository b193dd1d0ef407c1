"""The registry: content ids, aliases by conditional put, and damage that is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs import storage
from jobs.detectors import node_cache, registry
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris
from model.artifact import save_artifact
from model.artifact.files import ArtifactError
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration
from tests.support.detectors import TINY


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A saved detector."""
    folder = tmp_path / "artifact"
    config = DetectorConfig.model_validate({"variant": "tiny", **TINY})
    save_artifact(folder, AttentDifferNet(config), calibration=Calibration(scores=(1.0, 2.0, 3.0)), metrics={})
    return folder


@pytest.fixture
def detectors(tmp_path: Path) -> str:
    """An empty registry."""
    return f"file://{tmp_path}/registry"


def test_a_detector_comes_back_by_its_alias(detectors: str, artifact: Path) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    assert registry.set_alias(detectors, "cap", alias="champion", detector_id=detector_id) is None
    found = registry.resolve(detectors, "cap", alias="champion")
    assert found is not None
    assert (found.detector_id, found.config.variant) == (detector_id, "tiny")
    assert found.calibration == Calibration(scores=(1.0, 2.0, 3.0))
    assert registry.list_categories(detectors) == ["cap"]


def test_a_registered_detector_knows_its_weights_without_reading_them(detectors: str, artifact: Path) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    storage.delete(uris.join(detectors, "cap", detector_id, "detector.safetensors"))
    found = registry.read_detector(detectors, "cap", detector_id=detector_id)
    assert registry.find_weights_id(detectors, found) == found.weights_id is not None


def test_the_weights_of_a_detector_of_before_are_read_to_know_them(
    detectors: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    known = registry.read_detector(detectors, "cap", detector_id=registry.put(detectors, "cap", folder=artifact))
    config = json.loads((artifact / "config.json").read_bytes())
    del config["weights_hash"]
    (artifact / "config.json").write_text(json.dumps(config))
    detector_id = registry.put(detectors, "cap", folder=artifact)
    before = registry.read_detector(detectors, "cap", detector_id=detector_id)
    assert before.weights_id is None
    assert registry.find_weights_id(detectors, before) == known.weights_id
    storage.delete(uris.join(detectors, "cap", detector_id, "detector.safetensors"))
    shutil.rmtree(node_cache.make_private_cache())
    assert registry.find_weights_id(detectors, before) is None


def test_a_category_without_alias_resolves_to_nothing(detectors: str) -> None:
    assert registry.resolve(detectors, "cap", alias="champion") is None


_ELSEWHERE = [".", "..", "../cap", "a/../cap", "cap/"]


@pytest.mark.parametrize("category", _ELSEWHERE)
def test_a_category_that_leads_elsewhere_resolves_to_nothing(detectors: str, category: str) -> None:
    registry.set_alias(detectors, "cap", alias="champion", detector_id="0" * 16)
    assert registry.resolve(detectors, category, alias="champion") is None


@pytest.mark.parametrize("category", _ELSEWHERE)
def test_nothing_is_written_or_fetched_for_a_category_that_leads_elsewhere(
    detectors: str, artifact: Path, category: str
) -> None:
    for use in (
        lambda: registry.put(detectors, category, folder=artifact),
        lambda: registry.set_alias(detectors, category, alias="champion", detector_id="0" * 16),
        lambda: node_cache.hold_detector(detectors, category, detector_id="0" * 16).__enter__(),
        lambda: registry.read_detector(detectors, category, detector_id="0" * 16),
    ):
        with pytest.raises(RequestError, match="expected the name of a category"):
            use()


def test_putting_the_same_detector_twice_gives_the_same_id(detectors: str, artifact: Path) -> None:
    assert registry.put(detectors, "cap", folder=artifact) == registry.put(detectors, "cap", folder=artifact)


def test_a_detector_changed_in_storage_is_not_loaded(detectors: str, artifact: Path, tmp_path: Path) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    calibration = uris.join(detectors, "cap", detector_id, "calibration.json")
    storage.write(calibration, Calibration(scores=(9.0,)).model_dump_json().encode())
    with pytest.raises(ArtifactError, match="does not hold the content its id names"):
        node_cache.download(detectors, "cap", detector_id=detector_id, folder=tmp_path / "copy")


def test_an_alias_of_a_detector_that_is_gone_is_named(detectors: str, tmp_path: Path) -> None:
    registry.set_alias(detectors, "cap", alias="champion", detector_id="0" * 16)
    with pytest.raises(RequestError, match="champion of cap is 0000000000000000"):
        registry.resolve(detectors, "cap", alias="champion")
    with pytest.raises(MissingObjectError, match="0" * 16):
        node_cache.download(detectors, "cap", detector_id="0" * 16, folder=tmp_path / "copy")


def test_a_damaged_calibration_is_named(detectors: str, artifact: Path) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    registry.set_alias(detectors, "cap", alias="champion", detector_id=detector_id)
    place = uris.join(detectors, "cap", detector_id, "calibration.json")
    storage.write(place, json.dumps({"scores": ["x"]}).encode())
    with pytest.raises(
        RequestError, match=rf"champion of cap is {detector_id}: .*calibration\.json holds no calibration"
    ):
        registry.resolve(detectors, "cap", alias="champion")


def test_detectors_are_listed_by_category_with_or_without_alias_if_they_are_whole(
    detectors: str, artifact: Path
) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    registry.put(detectors, "damper", folder=artifact)
    storage.write(uris.join(detectors, "damper", "0" * 16, "config.json"), b"{}")
    registry.set_alias(detectors, "cap", alias="champion", detector_id=detector_id)
    assert registry.list_detector_ids(detectors) == {"cap": [detector_id], "damper": [detector_id]}


def test_metrics_of_a_detector_come_back(detectors: str, tmp_path: Path) -> None:
    config = DetectorConfig.model_validate({"variant": "tiny", **TINY})
    save_artifact(tmp_path / "a", AttentDifferNet(config), calibration=None, metrics={"loss": 1.5})
    detector_id = registry.put(detectors, "cap", folder=tmp_path / "a")
    assert registry.read_metrics(detectors, "cap", detector_id=detector_id)["loss"] == 1.5
    with pytest.raises(RequestError, match="no detector 0000000000000000 of cap is registered"):
        registry.read_metrics(detectors, "cap", detector_id="0" * 16)
