"""Detectors say where a photo deviates, in either arithmetic, at no change of its score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.artifact import load_artifact, save_artifact
from model.artifact.files import ArtifactError
from model.detector import AttentDifferNet
from model.inference.detector import EagerScorer, build_scorer
from model.localization.fitting import fit_positions
from model.localization.places import find_places
from model.training.photos import InMemory
from tests.support.detectors import build_config, needs_fast_bf16

SIDE = 128
SPOT = (slice(80, 112), slice(16, 48))
"""Rows and columns of what is wrong in `_spoil`."""


def _photos(count: int, *, seed: int = 0) -> Tensor:
    """Smooth photos."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 80 + 80
    return nn.functional.interpolate(coarse, size=SIDE, mode="bilinear").round().to(torch.uint8)


def _spoil(photos: Tensor) -> Tensor:
    spoilt = photos.clone()
    noise = torch.randint(0, 2, (len(photos), 1, 32, 32), generator=torch.Generator().manual_seed(9))
    spoilt[:, :, SPOT[0], SPOT[1]] = (255 * noise).to(torch.uint8)
    return spoilt


def _detector(**parts: object) -> AttentDifferNet:
    settings = {"image_size": SIDE, "feature_stage": "pool1+pool2", "scales": 2, "feature_scaling": "channel"}
    detector = AttentDifferNet(build_config(**settings | parts)).eval()
    photos = nn.functional.interpolate(_photos(24).float(), size=detector.config.image_size).to(torch.uint8)
    with torch.no_grad():
        detector.fit_feature_scaling(detector.pool_features(photos))
    fit_positions(detector, InMemory(photos))
    return detector


@pytest.mark.parametrize("views", [1, 4, 20])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_fast_bf16)])
def test_the_peak_is_where_the_photo_was_spoilt_whatever_its_views(precision: str, views: int) -> None:
    scorer = build_scorer(_detector(precision=precision, views=views))
    photos = _photos(5, seed=1)
    photos[3] = _spoil(photos[3:4])[0]
    scores, maps = scorer.inspect(photos)
    assert maps is not None
    place = find_places(maps.float().numpy())[3]
    assert place is not None
    assert SPOT[1].start <= place.x * SIDE <= SPOT[1].stop
    assert SPOT[0].start <= place.y * SIDE <= SPOT[0].stop
    assert float(maps[3].max()) > 2 * float(maps[[0, 1, 2, 4]].max())
    assert torch.equal(scores, scorer.score(photos))


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_fast_bf16)])
def test_positions_change_no_score(precision: str) -> None:
    detector, photos = _detector(precision=precision), _photos(3, seed=1)
    with_place = build_scorer(detector).score(photos)
    detector.positions = None
    scores, maps = build_scorer(detector).inspect(photos)
    assert maps is None
    assert torch.equal(with_place, scores)


def test_an_artifact_keeps_positions_and_one_of_before_has_none(tmp_path: Path) -> None:
    detector, photos = _detector(), _photos(3, seed=1)
    save_artifact(tmp_path / "new", detector, calibration=None, metrics={})
    loaded = load_artifact(tmp_path / "new").detector
    for found, expected in zip(loaded.inspect_as_trained(photos), detector.inspect_as_trained(photos), strict=True):
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected)
    detector.positions = None
    save_artifact(tmp_path / "old", detector, calibration=None, metrics={})
    assert load_artifact(tmp_path / "old").detector.inspect_as_trained(photos)[1] is None


def test_an_artifact_with_a_part_of_the_positions_is_refused(tmp_path: Path) -> None:
    detector = _detector()
    assert detector.positions is not None
    del detector.positions.level0

    with pytest.raises(ArtifactError, match=r"missing: \['positions.level0'\]"):
        save_artifact(tmp_path, detector, calibration=None, metrics={})


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_a_place_in_a_square_that_is_not_the_photo_is_not_told(resize: str) -> None:
    assert _detector(resize=resize).positions is None


def test_maps_of_one_position_have_no_place() -> None:
    detector = _detector(image_size=64, scales=1, feature_stage=None)
    assert detector.backbone.trace_map_shapes() == [(256, 1, 1)]
    assert detector.positions is None


@pytest.mark.slow  # builds a network of a library
def test_a_finer_stage_than_those_pooled_tells_where_and_artifacts_without_it_still_do(tmp_path: Path) -> None:
    detector = _detector(backbone="resnet18", feature_stage="layer2+layer3", scales=1)
    assert detector.backbone.mapped_stages == ("stride4", "layer2", "layer3")
    assert detector.feature_dim == 128 + 256
    whole, photos = detector.positions, _photos(3, seed=1)
    assert whole is not None
    assert detector.inspect_as_trained(photos)[1].shape == (3, 32, 32)  # type: ignore[union-attr]
    scores = detector.score(photos)
    detector.add_positions(stages=2)  # as before the finer one was mapped
    assert detector.positions is not None
    detector.positions.fit(*([detector.pool_with_maps(_photos(24))[1][1:]] for _ in range(2)))
    save_artifact(tmp_path, detector, calibration=None, metrics={})
    loaded = load_artifact(tmp_path).detector
    found, deviations = loaded.inspect_as_trained(photos)
    assert torch.equal(found, scores)
    assert deviations is not None
    assert deviations.shape == (3, 16, 16)


@needs_fast_bf16
def test_distances_inside_the_compiled_network_are_those_outside_up_to_rounding() -> None:
    detector, photos = _detector(precision="bf16", views=4), _photos(5, seed=1)
    photos[3] = _spoil(photos[3:4])[0]
    compiled, eager = (one.inspect(photos)[1] for one in (build_scorer(detector), EagerScorer(detector)))
    assert compiled is not None
    assert eager is not None
    assert float((compiled - eager).abs().max()) < 0.1 * float(eager.max())
