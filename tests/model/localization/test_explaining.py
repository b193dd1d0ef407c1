"""A photo is mapped in every way that its detector has, and maps are scaled as they are shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.config import AttentionConfig
from model.detector import AttentDifferNet
from model.localization.explaining import (
    FAINT_PEAK,
    GRADCAM,
    GRADCAM_WITHOUT,
    POSITIONS,
    explain_photos,
    scale_map,
)
from tests.support.detectors import build_config, draw_images


def _explain(*, positions: bool = True, **parts: object) -> list[dict[str, np.ndarray]]:
    detector = AttentDifferNet(build_config(image_size=128, **parts)).eval()
    if positions:
        detector.add_positions()
    for block in detector.backbone.attention.parameters():
        torch.nn.init.normal_(block, generator=torch.Generator().manual_seed(0))
    return explain_photos(detector, draw_images(2, side=128))


def test_a_detector_with_attention_is_asked_with_it_and_without() -> None:
    first, second = _explain(attention={"pool1": AttentionConfig(kind="se")})
    assert set(first) == set(second) == {POSITIONS, GRADCAM, GRADCAM_WITHOUT}
    assert not np.allclose(first[GRADCAM], first[GRADCAM_WITHOUT])
    assert all(one.ndim == 2 and one.dtype == np.float32 and np.isfinite(one).all() for one in first.values())


@pytest.mark.parametrize(("positions", "names"), [(True, {POSITIONS, GRADCAM}), (False, {GRADCAM})])
def test_what_a_detector_has_not_is_not_mapped(positions: bool, names: set[str]) -> None:
    assert set(_explain(positions=positions)[0]) == names


def test_without_attention_the_maps_are_those_of_the_features_that_are_scored() -> None:
    plain = _explain()[0][GRADCAM]
    left_out = _explain(attention={"pool1": AttentionConfig(kind="se")})[0][GRADCAM_WITHOUT]
    assert np.allclose(plain, left_out)


def test_a_flawless_photo_does_not_glow_by_its_positions_alone() -> None:
    values = np.array([[-1.0, 0.5], [1.5, 0.0]], np.float32)
    assert scale_map(values, POSITIONS).max() == pytest.approx(1.5 / FAINT_PEAK)
    assert scale_map(values, GRADCAM).max() == 1
    assert scale_map(values, GRADCAM).min() == 0


def test_a_map_that_is_not_finite_or_flat_is_still_shown() -> None:
    assert scale_map(np.array([[np.nan, np.inf, 2.0]], np.float32), GRADCAM).tolist() == [[0, 0, 1]]
    assert scale_map(np.zeros((2, 2), np.float32), GRADCAM).tolist() == [[0, 0], [0, 0]]
