"""Photos come from the CPU, detectors may live on a GPU: nothing between the two is left on the wrong side.

`tests.support.pretended_device` stands for the GPU, so these tests hold on every machine; with a real one there is
`tests/model/test_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from jobs.detectors.registration import score_photos
from jobs.evaluation.stage import ScoreWithEach
from jobs.scoring.batch_scoring import BatchScorer
from jobs.training.worker import compute_comparable_loss
from model.artifact import load_artifact, save_artifact
from model.config import ATTENTION_KINDS, DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.inference.detector import EagerScorer, build_scorer
from model.network.rotation import list_scoring_angles
from model.statistics.calibration import Calibration
from model.training.checkpoint import TrainingState
from model.training.estimate import time_work
from model.training.loop import train
from model.training.photos import InMemory
from model.training.views import compute_view_features
from tests.support.detectors import build_config, draw_images
from tests.support.pretended_device import CUDA, DeviceMismatchError, PretendedGpu, pretend_gpu
from tests.support.training import build_training_config, draw_photos, have_same_weights, ignore_epoch


class _Photos(InMemory):
    def subset(self, photos: npt.NDArray[np.int64]) -> _Photos:
        return _Photos(self.images[torch.from_numpy(photos)])


PHOTOS = _Photos(draw_photos(8))
SETTINGS = OptimizerConfig(epochs=2, batch_size=4, learning_rate=1e-3)


@pytest.fixture
def gpu() -> Iterator[PretendedGpu]:
    with pretend_gpu() as gpu:
        yield gpu


def _on_gpu(config: DetectorConfig) -> AttentDifferNet:
    return AttentDifferNet(config).eval().to("cuda")


def test_the_pretended_gpu_refuses_what_a_gpu_refuses(gpu: PretendedGpu) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert (here.device.type, there.device, (there * 2)[1:].device) == ("cpu", CUDA, CUDA)
    assert (there * torch.tensor(2.0)).device == there.to(here).to("cuda").device == CUDA
    with pytest.raises(DeviceMismatchError, match="same device"):
        here + there
    with pytest.raises(DeviceMismatchError, match="indices"):
        here[torch.tensor([0], device="cuda")]
    with pytest.raises(DeviceMismatchError, match="numpy"):
        there.numpy()
    assert nn.Linear(2, 2).to("cuda").weight.device == CUDA


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [None, *ATTENTION_KINDS])
@pytest.mark.parametrize("backbone", ["alexnet", "alexnet_caffe"])
def test_a_detector_on_a_gpu_scores_photos_of_the_cpu(
    gpu: PretendedGpu, backbone: str, kind: str | None, precision: str
) -> None:
    attention = {"pool1": {"kind": kind}} if kind else {}
    parts: dict[str, Any] = {"feature_scaling": "whiten", "pooling": "average_max", "rotation_padding": "reflect"}
    detector = _on_gpu(build_config(backbone=backbone, attention=attention, precision=precision, **parts))
    scorer = build_scorer(detector)
    assert isinstance(scorer, EagerScorer)
    scores = scorer.score(draw_images())
    assert scores.device == CUDA
    assert scores.cpu().isfinite().all()
    assert scorer.score(draw_images(0)).device == CUDA


def test_detectors_that_share_a_backbone_score_on_a_gpu(gpu: PretendedGpu) -> None:
    first = build_scorer(_on_gpu(build_config(precision="bf16")))
    second = build_scorer(_on_gpu(build_config(precision="bf16", seed=1)), sharing=first)
    assert second.backbone is first.backbone
    assert second.score(draw_images()).device == CUDA


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("training", "angles", "scaling"),
    [
        ("pretext", "scoring", "whiten"),
        ("pretext", "uniform", "global"),
        ("joint", "uniform", "channel"),
        ("frozen", "scoring", "none"),
    ],
)
def test_a_detector_trains_on_a_gpu_and_calibrates_with_photos_of_the_cpu(
    gpu: PretendedGpu, training: str, angles: str, scaling: str, precision: str
) -> None:
    config = build_training_config(
        attention_training=training,
        pretext={"steps": 2, "pairs": 3},
        train_angles=angles,
        feature_scaling=scaling,
        collapse_guard=False,
        precision=precision,
    )
    detector = _on_gpu(config)
    time_work(detector, SETTINGS)
    settings = SETTINGS.model_copy(update={"patience": 2})
    history = train(detector, PHOTOS, optimizer=settings, on_epoch=ignore_epoch, validation=InMemory(draw_photos(4)))
    assert detector.flow.inn is not None
    assert compute_comparable_loss(detector, PHOTOS, history[-1]) is not None  # type: ignore[arg-type]
    assert len(score_photos(detector, InMemory(draw_photos(3, seed=1)))) == 3


def test_a_training_resumes_on_a_gpu_as_it_began(gpu: PretendedGpu) -> None:
    config = build_training_config(attention={}, train_angles="scoring")
    whole, resumed = _on_gpu(config), _on_gpu(config)
    states: list[TrainingState] = []
    train(whole, PHOTOS, optimizer=SETTINGS, on_epoch=lambda metrics, snapshot: states.append(snapshot()))
    assert not any(gpu.holds(tensor) for tensor in states[0].tensors.values())
    train(resumed, PHOTOS, optimizer=SETTINGS, on_epoch=ignore_epoch, resume=states[0])
    assert have_same_weights(whole, resumed)


def test_features_that_are_kept_stay_on_the_gpu(gpu: PretendedGpu) -> None:
    detector = _on_gpu(build_training_config(attention={}, train_angles="scoring"))
    features = compute_view_features(detector, PHOTOS, angles=list_scoring_angles(4))
    assert features.device == CUDA
    train(detector, PHOTOS, optimizer=SETTINGS, on_epoch=ignore_epoch, features=features)
    assert detector.score_pooled(features).device == CUDA


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_artifact_goes_to_a_gpu_and_back(gpu: PretendedGpu, precision: str, tmp_path: Path) -> None:
    trained = _on_gpu(build_config(precision=precision, feature_scaling="channel"))
    save_artifact(tmp_path, trained, calibration=Calibration(scores=(1.0, 2.0)), metrics={})
    loaded = load_artifact(tmp_path, device="cuda").detector
    assert build_scorer(loaded).score(draw_images()).device == CUDA


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scoring_and_evaluation_move_their_photos(gpu: PretendedGpu, precision: str) -> None:
    """Their own methods; what Ray and the registry do around them knows no device."""
    scorer = build_scorer(_on_gpu(build_config(precision=precision)))
    images = draw_images().numpy()
    batch: Any = BatchScorer.__new__(BatchScorer)
    batch._device = "cuda"
    loaded: Any = type("Loaded", (), {"scorer": scorer})
    assert len(batch._score_parts(loaded, [images[:2], images[2:]])[0]) == 3

    each: Any = ScoreWithEach.__new__(ScoreWithEach)
    each._device = "cuda"
    moved: Tensor = torch.from_numpy(images).to(each._device)
    assert scorer.score(moved).cpu().numpy().shape == (3,)
