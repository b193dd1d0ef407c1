"""The least likely flawless photos: a hidden defect comes first, and its twin does not hide it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.detector import AttentDifferNet
from model.training.photos import InMemory
from model.training.unlikely_photos import MIN_PHOTOS, find_unlikely_photos, score_by_others
from tests.support.training import build_training_config, draw_photos


def test_a_photo_unlike_the_others_is_named_first_with_its_p_value() -> None:
    photos = draw_photos(30)
    photos[17] = 255 - photos[17] // 4
    first, *others = find_unlikely_photos(AttentDifferNet(build_training_config()).eval(), InMemory(photos), count=4)
    assert first.index == 17
    assert first.p_value == pytest.approx(1 / 30)
    assert first.times_median > 1.5 * others[0].times_median
    assert [one.p_value for one in others] == sorted(one.p_value for one in others)
    assert len(others) == 3


def test_a_defect_photographed_twice_is_not_hidden_by_its_twin() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8))
    features[7] = features[8] = 6.0
    groups = np.arange(60)
    groups[8] = 7
    scores = score_by_others(features, groups)
    assert set(np.argsort(-scores)[:2]) == {7, 8}
    assert scores[[7, 8]].min() > 5 * np.median(scores)


def test_too_few_photos_name_none() -> None:
    detector = AttentDifferNet(build_training_config()).eval()
    assert find_unlikely_photos(detector, InMemory(draw_photos(MIN_PHOTOS - 1)), count=4) == []
    assert torch.is_grad_enabled()
