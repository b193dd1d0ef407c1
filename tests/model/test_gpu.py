"""On a real GPU: a detector trains there, calibrates with photos of the CPU, and scores as it was calibrated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.detectors.registration import score_photos
from model.artifact import load_artifact, save_artifact
from model.config import OptimizerConfig
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.statistics.calibration import Calibration
from model.training.estimate import time_work
from model.training.loop import train
from model.training.photos import InMemory
from tests.support.training import build_training_config, draw_photos, ignore_epoch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="needs an NVIDIA GPU: none is here"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("training", "angles"), [("pretext", "scoring"), ("joint", "uniform"), ("frozen", "uniform")])
def test_a_detector_trained_on_a_gpu_scores_as_it_was_calibrated(
    training: str, angles: str, precision: str, tmp_path: Path
) -> None:
    config = build_training_config(
        attention_training=training,
        pretext={"steps": 2, "pairs": 3},
        train_angles=angles,
        collapse_guard=False,
        precision=precision,
    )
    detector = AttentDifferNet(config).to("cuda")
    settings = OptimizerConfig(epochs=2, batch_size=4, learning_rate=1e-3, patience=2)
    time_work(detector, settings)
    held_out = draw_photos(4, seed=1)
    train(detector, InMemory(draw_photos(8)), optimizer=settings, on_epoch=ignore_epoch, validation=InMemory(held_out))
    scores = tuple(score_photos(detector, InMemory(held_out)))

    save_artifact(tmp_path, detector, calibration=Calibration(scores=scores), metrics={})
    loaded = load_artifact(tmp_path, device="cuda").detector
    again = build_scorer(loaded).score(held_out).cpu()
    torch.testing.assert_close(again, torch.tensor(scores, dtype=torch.float64), rtol=1e-4, atol=1e-6)
