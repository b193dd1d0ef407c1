"""A detector trained on flawless photos, and the maps that it gives of marked ones, made in every way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jobs import storage
from jobs.benchmarks.config import LocalizationBenchmarkConfig
from jobs.cluster.progress import format_duration
from jobs.decoding.photos import decode_images
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import RequestError
from jobs.training.config import merge_preset
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet, build_detector
from model.localization.fitting import fit_positions
from model.localization.gates import map_spatial_gates
from model.localization.gradients import map_gradients
from model.localization.metrics import Map
from model.network.backbone import Backbone
from model.presets import PRESET_OPTIMIZERS
from model.training.loop import train
from model.training.photos import InMemory

CENTRE, UNIFORM = "centre", "uniform"
"""Maps that know nothing of the photo: what every method has to beat."""
_BATCH_PHOTOS = 8
_LINE_INTERVAL_S = 10.0
_CENTRE_SIGMA = 0.25
"""Of the Gaussian in the photo's middle, as a share of the side."""


def make_detector_config(config: LocalizationBenchmarkConfig, *, seed: int) -> DetectorConfig:
    """Returns the detector that is measured: the preset, with attention after its pooled stages if that was asked for.

    Raises:
        RequestError: there is no such preset, or it has no stage to attend to.
    """
    changes: dict[str, object] = {"weights": config.weights, "precision": config.precision}
    try:
        if config.attention:
            changes["attention"] = {stage: {"kind": config.attention} for stage in list_pooled_stages(config.variant)}
        return DetectorConfig.model_validate({**merge_preset(config.variant, changes), "seed": seed})
    except ValueError as error:
        raise RequestError(f"--variant {config.variant}: {error}") from error


def list_pooled_stages(variant: str) -> list[str]:
    """Lists the stages that a preset pools by their names.

    Raises:
        ValueError: it pools what no stage's name stands for, as DifferNet does.
    """
    with torch.device("meta"):
        stages = Backbone(DetectorConfig.model_validate(merge_preset(variant, {}))).pooled_stages
    if "" in stages:
        raise ValueError("it pools behind its last stage, so --attention cannot stand there: choose another preset")
    return list(stages)


def train_detector(config: LocalizationBenchmarkConfig, photos: Sequence[str], *, seed: int) -> AttentDifferNet:
    """Trains the asked variant, and fits what its place needs."""
    detector = make_detector_config(config, seed=seed)
    built = build_detector(detector, load_backbone_weights(detector, asked_as=f"--weights {config.weights}"))
    images = InMemory(decode(photos, built))
    optimizer = OptimizerConfig.model_validate(PRESET_OPTIMIZERS.get(config.variant, {}))
    train(built, images, optimizer=optimizer, on_epoch=lambda *_: None)
    fit_positions(built, images)
    return built


def decode(photos: Sequence[str], detector: AttentDifferNet) -> Tensor:
    """Decodes photos as scoring does, uint8 (N, 3, S, S)."""
    config = detector.config
    return decode_images((storage.read(uri) for uri in photos), size=config.image_size, rules=config.pixel_rules)


def map_all(detector: AttentDifferNet, photos: Sequence[str]) -> dict[str, list[Map]]:
    """Maps photos in every way, a few at a time, and says how far it is."""
    maps: dict[str, list[Map]] = {}
    began = said = time.monotonic()
    for start in range(0, len(photos), _BATCH_PHOTOS):
        some = photos[start : start + _BATCH_PHOTOS]
        for method, found in map_photos(detector, decode(some, detector)).items():
            maps.setdefault(method, []).extend(found.float().numpy())
        done, now = start + len(some), time.monotonic()
        if now - said > _LINE_INTERVAL_S or done == len(photos):
            left_s = (now - began) * (len(photos) - done) / done
            print(f"{done} of {len(photos)} photos mapped, about {format_duration(left_s)} left", flush=True)
            said = now
    return maps


def map_photos(detector: AttentDifferNet, images: Tensor) -> Mapping[str, Tensor]:
    """Maps photos, uint8 (N, 3, H, W), in every way: (N, h, w) by its name. ``positions`` is what scoring stores."""
    found: dict[str, Tensor] = {}
    if (positions := detector.inspect_as_trained(images)[1]) is not None:
        found["positions"] = positions
    found |= map_gradients(detector, images)
    if (gates := map_spatial_gates(detector, images)) is not None:
        found["attention"] = gates
    found[CENTRE] = torch.from_numpy(draw_centre()).expand(len(images), -1, -1)
    found[UNIFORM] = torch.zeros(len(images), 1, 1)
    return found


def draw_centre(side: int = 28) -> npt.NDArray[np.float32]:
    """Draws a Gaussian in the middle, (side, side)."""
    along = ((np.arange(side) + 0.5) / side - 0.5) ** 2
    return np.exp(-(along[:, None] + along[None]) / (2 * _CENTRE_SIGMA**2)).astype(np.float32)
