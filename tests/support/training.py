"""Trainings that take seconds, and what their tests share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from jobs import storage
from jobs.detectors.aliases import set_alias
from jobs.detectors.registry import put
from jobs.training.config import TrainConfig
from jobs.training.planning import plan_units
from jobs.training.units import split_photos
from model.artifact import save_artifact
from model.config import AttentionConfig, DetectorConfig, FlowConfig
from model.detector import AttentDifferNet
from model.image import decode_image
from model.inference.detector import build_scorer
from model.localization.fitting import fit_positions
from model.process import prepare_process
from model.statistics.calibration import Calibration
from model.training.loop import Snapshot, train
from model.training.metrics import EpochMetrics
from model.training.photos import InMemory
from tests.support.detectors import TINY


def build_training_config(**changes: object) -> DetectorConfig:
    """Builds the settings of a tiny detector with attention at two places, as a changed copy."""
    tiny = DetectorConfig(
        weights="random",
        image_size=64,
        scales=1,
        attention={"pool1": AttentionConfig(kind="se"), "conv5": AttentionConfig(kind="cbam")},
        feature_scaling="channel",
        flow=FlowConfig(blocks=2, hidden_width=16, hidden_layers=1),
        views=4,
        train_views=2,
    )
    return DetectorConfig.model_validate(tiny.model_dump() | changes)


def draw_photos(count: int = 6, *, seed: int = 0) -> Tensor:
    """Draws photos, (count, 3, 64, 64) uint8 with structure at several scales: their pooled features differ."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


def ignore_epoch(_: EpochMetrics, _snapshot: Snapshot) -> None:
    """Takes the report of an epoch and does nothing."""


def have_same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Compares all weights and buffers of two modules, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def register_untrained(detectors: str, category: str, *, folder: Path) -> None:
    """Saves a tiny untrained detector in ``folder``, calibrated on 30 scores, and makes it the champion."""
    calibration = Calibration(scores=tuple(float(score) for score in range(30)))
    save_artifact(folder, AttentDifferNet(build_training_config()), calibration=calibration, metrics={})
    set_alias(detectors, category, alias="champion", detector_id=put(detectors, category, folder=folder))


def request_tiny_training(drawn: Path, registry: Path) -> dict[str, object]:
    """Returns the request that trains the tiny detector."""
    return {
        "data": str(drawn / "data"),
        "category": "insulator",
        "variant": "attentdiffernet_se",
        "threads": 1,  # more sum in another order, and tests compare bits
        "detectors": str(registry),
        "detector": TINY,
        "optimizer": {"epochs": 20, "learning_rate": 1e-3},
    }


def train_plainly(config: TrainConfig, folder: Path) -> tuple[str, AttentDifferNet, list[EpochMetrics]]:
    """Trains what a request for one detector asks for, without Ray, and saves it in ``folder``.

    Returns:
        The detector's id, the detector, and the metrics of its epochs.
    """
    (unit,) = plan_units(config)
    prepare_process(threads=config.threads or 1)  # whatever the shell's OMP_NUM_THREADS says: bits are compared
    detector = AttentDifferNet(unit.config.detector)
    size = unit.config.detector.image_size
    images = torch.stack([decode_image(storage.read(uri), size=size) for uri in unit.manifest["image_uri"].to_pylist()])
    splits = split_photos(len(images), config=unit.config)
    training = InMemory(images[splits.training])
    history = train(
        detector,
        training,
        optimizer=unit.config.optimizer,
        on_epoch=lambda *_: None,
        validation=InMemory(images[splits.validation]),
    )
    fit_positions(detector, training)
    scores = tuple(float(score) for score in build_scorer(detector).score(images[splits.calibration]))
    return save_artifact(folder, detector, calibration=Calibration(scores=scores), metrics={}), detector, history


REAL_TRAINING = {
    "variant": "attentdiffernet_se",
    "optimizer": {"epochs": 2},
    "detector": {
        "backbone": "alexnet_caffe",
        "image_size": 160,
        "views": 4,
        "train_angles": "scoring",
        "feature_scaling": "global",
        "flow": {"blocks": 6, "hidden_width": 256},
        "pretext": {"steps": 2},
    },
}
"""Trains attentdiffernet_se on some tens of real photos in seconds."""
