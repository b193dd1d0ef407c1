"""A detector without a flow is a Gaussian: what Ledoit and Wolf's covariance says, averaged over views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from model.artifact import load_artifact, save_artifact
from model.config import DetectorConfig, FlowConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.network.rotation import list_scoring_angles, rotate_views
from model.training.estimate import time_work
from model.training.loop import train
from model.training.photos import InMemory
from tests.support.detectors import build_config
from tests.support.training import draw_photos, ignore_epoch

_GAUSSIAN = {"flow": FlowConfig(blocks=0), "feature_scaling": "whiten", "train_views": 4, "train_angles": "scoring"}


@pytest.fixture(scope="module")
def detector() -> AttentDifferNet:
    """A Gaussian of 24 drawn photos."""
    built = AttentDifferNet(build_config(**_GAUSSIAN))
    epochs = train(built, InMemory(draw_photos(24)), optimizer=OptimizerConfig(epochs=2), on_epoch=ignore_epoch)
    assert epochs[0].loss == pytest.approx(epochs[1].loss)  # nothing learns
    return built


def test_its_score_is_the_mean_mahalanobis_distance_of_the_views(detector: AttentDifferNet) -> None:
    def pool(photos: torch.Tensor) -> np.ndarray:
        views = rotate_views(photos, list_scoring_angles(4))
        with torch.no_grad():
            return detector.pool_features(views).double().numpy()

    test = draw_photos(5, seed=1)
    distances = LedoitWolf().fit(pool(draw_photos(24))).mahalanobis(pool(test)).reshape(5, 4).mean(1)
    np.testing.assert_allclose(detector.score(test).numpy(), distances / detector.feature_dim, rtol=1e-3)


def test_it_is_stored_and_scores_the_same(detector: AttentDifferNet, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("gaussian")
    save_artifact(folder, detector, calibration=None, metrics={})
    loaded = load_artifact(folder).detector
    assert torch.equal(loaded.score(draw_photos(3)), detector.score(draw_photos(3)))
    assert "none: a Gaussian" in (folder / "card.md").read_text()


def test_it_scores_in_bf16_as_well() -> None:
    built = AttentDifferNet(build_config(**_GAUSSIAN, precision="bf16"))
    train(built, InMemory(draw_photos(24)), optimizer=OptimizerConfig(epochs=1), on_epoch=ignore_epoch)
    photos = draw_photos(3, seed=1)
    torch.testing.assert_close(build_scorer(built).score(photos), built.score_as_trained(photos), rtol=0.2, atol=0.2)


def test_the_time_of_its_training_can_be_estimated(detector: AttentDifferNet) -> None:
    assert time_work(detector, OptimizerConfig()).step == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"feature_scaling": "none"}, "flow.blocks 0 fits nothing without feature_scaling"),
        (
            {"feature_scaling": "channel", "attention": {"pool1": {"kind": "se"}}, "attention_training": "joint"},
            "joint",
        ),
    ],
)
def test_what_nothing_could_fit_is_refused(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectorConfig.model_validate({"flow": {"blocks": 0}, **parts})
