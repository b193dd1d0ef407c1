"""Detectors kept loaded: as many as fit, the last used ones, sharing what they have in common."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from zlib import crc32

import pytest
import torch

from jobs.cluster.run_log import JsonLines, RunLog
from jobs.cluster.telemetry import LocalTelemetry
from jobs.detectors import registry
from jobs.detectors.cache import DetectorCache
from model.artifact import save_artifact
from model.config import BF16_VARIABLE, DetectorConfig, Precision
from model.detector import AttentDifferNet
from model.hardware import has_fast_bf16
from model.inference.detector import CompiledDetector, build_scorer
from model.statistics.calibration import Calibration
from tests.support.detectors import TINY


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file://{tmp_path}/registry"


def _register(place: str, tmp_path: Path, category: str, **changes: object) -> str:
    """A detector with random weights; those of the flow depend on the category."""
    config = DetectorConfig.model_validate({"variant": "tiny", **TINY, **changes})
    detector = AttentDifferNet(config)
    with torch.no_grad():
        for number, part in enumerate(detector.flow.parameters()):
            if part.is_floating_point():
                part.add_(crc32(category.encode()) % 97 / 1e4 + number * 1e-6)
    folder = tmp_path / "artifact" / category
    save_artifact(folder, detector, calibration=Calibration(scores=(0.0, 1.0)), metrics={})
    return registry.put(place, category, folder=folder)


def _cache(place: str, *, limit_bytes: int = 10**9) -> tuple[DetectorCache, LocalTelemetry]:
    heard = LocalTelemetry()
    cache = DetectorCache(
        place,
        limit_bytes=limit_bytes,
        device="cpu",
        measure=heard.add_measures,
        log=RunLog("night"),
    )
    return cache, heard


def _photos() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["fp32", "bf16", "bf16 without kernels"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Precision:
    name: str = request.param
    if "without" in name:
        monkeypatch.setenv(BF16_VARIABLE, "off")
    return "fp32" if name == "fp32" else "bf16"


@pytest.mark.slow
def test_a_detector_is_loaded_once_and_scores_as_the_registered_one(
    place: str, tmp_path: Path, precision: Precision
) -> None:
    detector_id = _register(place, tmp_path, "cap", precision=precision)
    cache, heard = _cache(place)
    first = cache.get("cap", detector_id=detector_id, precision=precision)
    assert cache.get("cap", detector_id=detector_id, precision=precision) is first
    assert heard.reported.measures["detector_loads"] == 1
    assert isinstance(first.scorer, CompiledDetector) == (precision == "bf16" and has_fast_bf16("cpu"))
    detector = AttentDifferNet(DetectorConfig.model_validate({"variant": "tiny", **TINY, "precision": precision}))
    with torch.no_grad():
        for number, part in enumerate(detector.flow.parameters()):
            if part.is_floating_point():
                part.add_(crc32(b"cap") % 97 / 1e4 + number * 1e-6)
    expected = build_scorer(detector).score(_photos())
    torch.testing.assert_close(first.scorer.score(_photos()), expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_the_least_recently_used_detector_makes_room(place: str, tmp_path: Path, precision: Precision) -> None:
    ids = {name: _register(place, tmp_path, name, precision=precision) for name in ("a", "b", "c")}
    cache, heard = _cache(place)
    size = cache.get("a", detector_id=ids["a"], precision=precision).size_bytes
    cache, heard = _cache(place, limit_bytes=2 * size)
    for name in ("a", "b", "a", "c", "a"):
        cache.get(name, detector_id=ids[name], precision=precision)
    assert (heard.reported.measures["detector_loads"], heard.reported.measures.get("detector_evictions", 0)) == (3, 1)
    assert cache.size_bytes == 2 * size
    cache.get("b", detector_id=ids["b"], precision=precision)  # it had gone
    assert heard.reported.measures["detector_loads"] == 4


def test_the_detector_in_use_stays_however_large_it_is(place: str, tmp_path: Path, precision: Precision) -> None:
    detector_id = _register(place, tmp_path, "a", precision=precision)
    cache, heard = _cache(place, limit_bytes=1)
    cache.get("a", detector_id=detector_id, precision=precision)
    cache.get("a", detector_id=detector_id, precision=precision)
    assert dict(heard.reported.measures, detector_load_s=0) == {"detector_loads": 1, "detector_load_s": 0}


@pytest.mark.slow
def test_detectors_of_equal_backbones_share_one(place: str, tmp_path: Path, precision: Precision) -> None:
    same = {name: _register(place, tmp_path, name, precision=precision) for name in ("a", "b")}
    other = _register(place, tmp_path, "c", precision=precision, seed=1)
    cache, _ = _cache(place)
    a, b = (cache.get(name, detector_id=same[name], precision=precision).scorer for name in ("a", "b"))
    c = cache.get("c", detector_id=other, precision=precision).scorer
    assert same["a"] != same["b"]
    assert a.backbone is b.backbone
    assert a.backbone is not c.backbone


def test_a_load_is_an_event_with_the_runs_id(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector_id = _register(place, tmp_path, "cap")
    cache, _ = _cache(place)
    with caplog.at_level(logging.INFO, logger="attentdiffernet"):
        cache.get("cap", detector_id=detector_id, precision="fp32")
    (event,) = (json.loads(JsonLines().format(record)) for record in caplog.records)
    assert (event["event"], event["run_id"], event["category"]) == ("detector_loaded", "night", "cap")
    assert event["detector_id"] == detector_id
