"""The registry: content ids, aliases by conditional put, and damage that is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TINY

from jobs import registry, storage, uris
from jobs.errors import ConflictError, JobError, MissingObjectError, RequestError
from model.artifact import ArtifactError, save_artifact
from model.calibration import Calibration
from model.config import DetectorConfig
from model.detector import AttentDifferNet


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
    assert registry.categories(detectors) == ["cap"]


def test_an_alias_moves_and_the_others_stay(detectors: str) -> None:
    first, second = "0" * 16, "1" * 16
    registry.set_alias(detectors, "cap", alias="champion", detector_id=first)
    registry.set_alias(detectors, "cap", alias="candidate", detector_id=second)
    assert registry.set_alias(detectors, "cap", alias="champion", detector_id=second) == first
    assert registry.aliases(detectors, "cap") == {"champion": second, "candidate": second}


def test_of_two_promotions_at_once_one_loses(detectors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.set_alias(detectors, "cap", alias="champion", detector_id="0" * 16)
    stale = registry._aliases_with_etag(detectors, "cap")
    registry.set_alias(detectors, "cap", alias="champion", detector_id="1" * 16)
    monkeypatch.setattr(registry, "_aliases_with_etag", lambda *_: stale)
    with pytest.raises(ConflictError, match="another promotion of cap won"):
        registry.set_alias(detectors, "cap", alias="champion", detector_id="2" * 16)
    monkeypatch.undo()
    assert registry.aliases(detectors, "cap") == {"champion": "1" * 16}


def test_a_category_without_alias_resolves_to_nothing(detectors: str) -> None:
    assert registry.resolve(detectors, "cap", alias="champion") is None


@pytest.mark.parametrize("category", [".", "..", "../cap", "a/../cap", "cap/"])
def test_a_category_that_leads_elsewhere_resolves_to_nothing(detectors: str, category: str) -> None:
    registry.set_alias(detectors, "cap", alias="champion", detector_id="0" * 16)
    assert registry.resolve(detectors, category, alias="champion") is None


def test_a_cache_that_others_could_fill_is_not_used(
    detectors: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = registry.fetch(detectors, "cap", detector_id=detector_id)
    assert folder.is_relative_to(tmp_path)
    folder.parents[1].chmod(0o777)
    with pytest.raises(JobError, match="only this user"):
        registry.fetch(detectors, "cap", detector_id=detector_id)


def test_putting_the_same_detector_twice_gives_the_same_id(detectors: str, artifact: Path) -> None:
    assert registry.put(detectors, "cap", folder=artifact) == registry.put(detectors, "cap", folder=artifact)


def test_a_detector_changed_in_storage_is_not_loaded(detectors: str, artifact: Path, tmp_path: Path) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    calibration = uris.join(detectors, "cap", detector_id, "calibration.json")
    storage.write(calibration, Calibration(scores=(9.0,)).model_dump_json().encode())
    with pytest.raises(ArtifactError, match="does not hold the content its id names"):
        registry.download(detectors, "cap", detector_id=detector_id, folder=tmp_path / "copy")


def test_an_alias_of_a_detector_that_is_gone_is_named(detectors: str, tmp_path: Path) -> None:
    registry.set_alias(detectors, "cap", alias="champion", detector_id="0" * 16)
    with pytest.raises(RequestError, match="champion of cap is 0000000000000000"):
        registry.resolve(detectors, "cap", alias="champion")
    with pytest.raises(MissingObjectError):
        registry.download(detectors, "cap", detector_id="0" * 16, folder=tmp_path / "copy")


@pytest.mark.parametrize("content", [b"[", b"[]", b'{"champion": "../../etc"}', b'{"champion": 3}'])
def test_damaged_aliases_are_refused(detectors: str, content: bytes) -> None:
    storage.write(uris.join(detectors, "cap", "aliases.json"), content)
    with pytest.raises(RequestError, match=r"aliases\.json is damaged"):
        registry.resolve(detectors, "cap", alias="champion")


def test_a_damaged_calibration_is_named(detectors: str, artifact: Path) -> None:
    detector_id = registry.put(detectors, "cap", folder=artifact)
    registry.set_alias(detectors, "cap", alias="champion", detector_id=detector_id)
    place = uris.join(detectors, "cap", detector_id, "calibration.json")
    storage.write(place, json.dumps({"scores": ["x"]}).encode())
    with pytest.raises(RequestError, match=r"calibration\.json is damaged"):
        registry.resolve(detectors, "cap", alias="champion")
