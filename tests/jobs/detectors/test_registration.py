"""A trained detector's way into the registry: its calibration is what it scores, in its own arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.detectors import registry
from jobs.detectors.registration import register_detector, score_photos
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.training.photos import InMemory
from tests.support.detectors import TINY


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """Seven photos of noise."""
    return torch.randint(0, 256, (7, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def detector() -> AttentDifferNet:
    return AttentDifferNet(DetectorConfig.model_validate(TINY)).eval()


def test_photos_get_the_score_that_an_archive_would_give_them(detector: AttentDifferNet, photos: torch.Tensor) -> None:
    scores = score_photos(detector, InMemory(photos))
    assert scores == pytest.approx(build_scorer(detector).score(photos).tolist(), rel=1e-5)  # batches round otherwise


def test_workers_share_the_photos_out(detector: AttentDifferNet, photos: torch.Tensor) -> None:
    alone = score_photos(detector, InMemory(photos))
    parts = [score_photos(detector, InMemory(photos), rank=rank, world_size=3) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(score for part in parts for score in part) == pytest.approx(sorted(alone), rel=1e-5)
    assert score_photos(detector, InMemory(photos[:1]), rank=1, world_size=2) == []


def test_a_registered_detector_is_calibrated_with_its_scores(detector: AttentDifferNet, tmp_path: Path) -> None:
    detectors = f"file://{tmp_path}"
    detector_id = register_detector(
        detector, [0.5, 0.25, 1.0], detectors=detectors, category="insulator", metrics={"loss": 0.5}
    )
    registry.set_alias(detectors, "insulator", alias="champion", detector_id=detector_id)
    found = registry.resolve(detectors, "insulator", alias="champion")
    assert found is not None
    assert found.calibration is not None
    assert sorted(found.calibration.scores) == [0.25, 0.5, 1.0]
    assert registry.read_metrics(detectors, "insulator", detector_id=detector_id)["loss"] == 0.5
