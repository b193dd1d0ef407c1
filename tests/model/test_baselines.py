"""Closed-form baselines: each against its definition, and on photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from model.baselines import BASELINES, score_baseline, score_mahalanobis, score_nearest_neighbors, score_patch_memory
from model.config import AttentionConfig, DetectorConfig
from model.detector import AttentDifferNet
from model.statistics.evaluation import compute_auroc
from tests.support.training import draw_photos

_CONFIG = DetectorConfig(weights="random", image_size=64, scales=1, views=1)


def _scores(name: str, test: Tensor, *, config: DetectorConfig = _CONFIG, seed: int = 0) -> np.ndarray:
    return score_baseline(name, config, weights=None, train=draw_photos(20, seed=0), test=test, seed=seed)


def test_with_many_photos_mahalanobis_is_the_distance_under_the_true_covariance() -> None:
    rng = np.random.default_rng(0)
    mixing = np.array([[2.0, 0, 0], [1.5, 1, 0], [0, 0.5, 0.1]])
    train, test = rng.normal(size=(50_000, 3)) @ mixing.T + 7, rng.normal(size=(20, 3)) * 3 + 7
    whitened = np.linalg.solve(mixing, (test - 7).T)
    # A covariance from 50,000 vectors is known to about 1 %; the shrinkage adds less than that here.
    np.testing.assert_allclose(score_mahalanobis(train, test), (whitened**2).sum(0), rtol=0.04)


def test_mahalanobis_works_with_fewer_photos_than_channels() -> None:
    rng = np.random.default_rng(1)
    train, normal = rng.normal(size=(50, 200)), rng.normal(size=(30, 200))
    odd = rng.normal(size=(30, 200)) + np.where(np.arange(200) < 20, 2, 0)
    labels = np.arange(60) >= 30
    distances = score_mahalanobis(train, np.concatenate([normal, odd]))
    assert compute_auroc(labels, distances) > 0.95  # |shift|^2 is 80 against 2 * 200


def test_nearest_neighbours_is_the_mean_distance_to_the_nearest_in_standard_deviations() -> None:
    rng = np.random.default_rng(2)
    train, test = rng.normal(size=(30, 5)), rng.normal(size=(10, 5))
    scale = train.std(0)
    expected = np.sort(cdist(test / scale, train / scale), axis=1)[:, :3].mean(1)
    np.testing.assert_allclose(score_nearest_neighbors(train, test), expected, rtol=1e-12)
    unit = np.array([1, 10, 100, 0.1, 1e4])  # of measurement, channel by channel
    np.testing.assert_allclose(score_nearest_neighbors(train * unit, test * unit), expected, rtol=1e-9)


def test_patch_memory_is_the_largest_of_the_nearest_distances() -> None:
    rng = np.random.default_rng(3)
    train, test = rng.normal(size=(12, 7, 4)), rng.normal(size=(5, 7, 4))
    distances = cdist(test.reshape(-1, 4), train.reshape(-1, 4)).min(1)
    np.testing.assert_allclose(
        score_patch_memory(train, test, seed=0, share=1.0), distances.reshape(5, 7).max(1), rtol=1e-9
    )


def test_patch_memory_keeps_a_share_of_the_positions_chosen_by_its_seed() -> None:
    train = np.random.default_rng(4).normal(size=(20, 10, 3))
    itself = train.reshape(200, 1, 3)  # every position as a photo: kept ones have distance 0

    def kept(seed: int) -> list[int]:
        return np.flatnonzero(score_patch_memory(train, itself, seed=seed) < 1e-6).tolist()  # BLAS rounds 0 to 1e-8

    assert len(kept(0)) == 20
    assert kept(0) == kept(0)
    assert kept(0) != kept(1)


@pytest.mark.parametrize("name", BASELINES)
def test_photos_with_a_defect_score_higher(name: str) -> None:
    odd = draw_photos(10, seed=2)
    odd[:, :, 20:34, 24:40] = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    scores = _scores(name, torch.cat([draw_photos(10, seed=1), odd]))
    assert scores.dtype == np.float64
    assert compute_auroc(np.arange(20) >= 10, scores) > 0.8


@pytest.mark.parametrize("name", ["nearest_neighbours", "patch_memory"])  # one of each way to look at a photo
def test_attention_and_flow_are_left_out(name: str) -> None:
    attended = _CONFIG.model_copy(
        update={"attention": {"pool1": AttentionConfig(kind="se", gate="sigmoid")}, "feature_scaling": "channel"}
    )
    test = draw_photos(5, seed=1)
    np.testing.assert_array_equal(_scores(name, test), _scores(name, test, config=attended))


@pytest.mark.parametrize("name", ["nearest_neighbours", "patch_memory"])
def test_only_seeded_baselines_depend_on_the_seed(name: str) -> None:
    test = draw_photos(5, seed=1)
    is_same = np.array_equal(_scores(name, test, seed=0), _scores(name, test, seed=1))
    assert is_same != BASELINES[name].is_seeded


def test_pooled_baselines_learn_from_and_average_over_the_views_of_the_detectors() -> None:
    test, turned = draw_photos(3, seed=1), _CONFIG.model_copy(update={"views": 4})
    upright = _scores("mahalanobis", test)
    four = _scores("mahalanobis", test, config=turned)
    assert not np.allclose(upright, four, rtol=0.01)
    # What training photos and a score have of a turned photo is what they have of the photo itself.
    np.testing.assert_allclose(_scores("mahalanobis", torch.rot90(test, 1, (2, 3)), config=turned), four, rtol=1e-3)


def test_the_patch_memory_takes_a_photo_upright() -> None:
    test = draw_photos(3, seed=1)
    turned = _CONFIG.model_copy(update={"views": 4})
    np.testing.assert_array_equal(_scores("patch_memory", test), _scores("patch_memory", test, config=turned))


def test_the_maximum_changes_the_scores() -> None:
    test = draw_photos(5, seed=1)
    both = _scores("nearest_neighbours_average_max", test)
    assert not np.allclose(_scores("nearest_neighbours", test), both, rtol=0.01)


@pytest.mark.slow
def test_given_weights_are_the_ones_used() -> None:
    other = AttentDifferNet(_CONFIG.model_copy(update={"seed": 5})).backbone.layers.state_dict()
    photos = {"train": draw_photos(10, seed=0), "test": draw_photos(5, seed=1)}
    given = score_baseline("nearest_neighbours", _CONFIG, weights=other, seed=0, **photos)
    drawn = score_baseline("nearest_neighbours", _CONFIG.model_copy(update={"seed": 5}), weights=None, seed=0, **photos)
    np.testing.assert_array_equal(given, drawn)
