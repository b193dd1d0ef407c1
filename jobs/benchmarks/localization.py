"""How well a detector's maps find defects: the ways to make them side by side, on photos with masks or boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, list_labelled
from jobs.benchmarks.config import LocalizationBenchmarkConfig
from jobs.benchmarks.report import print_metrics, write_report
from jobs.decoding.photos import decode_images
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import RequestError
from jobs.storage import uris
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet, build_detector
from model.localization.fitting import fit_positions
from model.localization.gradients import map_gradients
from model.localization.metrics import Map, Mask, measure_maps
from model.presets import PRESET_OPTIMIZERS, get_preset
from model.process import prepare_process
from model.training.loop import train
from model.training.photos import InMemory

_BATCH_PHOTOS = 8
_CENTRE_SIGMA = 0.25
"""Of the Gaussian in the photo's middle that every method has to beat, as a share of the side."""


def measure_localization(config: LocalizationBenchmarkConfig) -> None:
    """Trains a detector on the flawless photos of a set, maps its marked photos in every way, and measures the maps."""
    prepare_process()
    training, marked = list_photos(config)
    detector = train_detector(config, training)
    maps: dict[str, list[Map]] = {}
    for start in range(0, len(marked), _BATCH_PHOTOS):
        some = [uri for uri, _ in marked[start : start + _BATCH_PHOTOS]]
        for method, found in map_photos(detector, decode(some, detector)).items():
            maps.setdefault(method, []).extend(found.float().numpy())
        print(f"{min(start + _BATCH_PHOTOS, len(marked))} of {len(marked)} photos", flush=True)
    masks = [mask for _, mask in marked]
    measured = {method: asdict(measure_maps(found, masks)) for method, found in maps.items()}
    write_report({"photos": len(marked), "methods": measured}, output=config.output, config=config)
    flat = {f"{method}_{name}": value for method, one in measured.items() for name, value in one.items()}
    print_metrics(flat, list(flat))


def list_photos(config: LocalizationBenchmarkConfig) -> tuple[list[str], list[tuple[str, Mask]]]:
    """Lists the flawless training photos, and the photos with a mark that is not empty.

    Raises:
        RequestError: there are none of either.
    """
    rows = list_labelled(config.data).select(["image_uri", "split", "label"]).to_pylist()
    training = [row["image_uri"] for row in rows if row["split"] == "train"]
    if config.boxes is None:
        defective = [row["image_uri"] for row in rows if row["split"] == "test" and row["label"] != FLAWLESS]
        found = [(uri, read_mask(locate_mask(uri))) for uri in defective]
    else:
        found = read_boxes(config.boxes)
    marked = [(uri, mask) for uri, mask in found if mask.any()][:: config.every]
    if not training or not marked:
        raise RequestError(
            f"{config.data} needs photos in train/good and marked ones in test/<defect>, got {len(rows)}"
        )
    return training, marked


def locate_mask(photo: str) -> str:
    """Returns where MVTec's layout has a photo's mask: test/<defect>/x.jpg -> ground_truth/<defect>/x_mask.png."""
    folder, name = photo.rsplit("/", 1)
    above, defect = folder.rsplit("/", 1)
    return f"{above.removesuffix('/test')}/ground_truth/{defect}/{name.rsplit('.', 1)[0]}_mask.png"


def read_mask(uri: str) -> Mask:
    """Reads a mask; light is marked."""
    return np.asarray(Image.open(BytesIO(storage.read(uri))).convert("L")) > 127


def read_boxes(uri: str) -> list[tuple[str, Mask]]:
    """Reads a JSON object of name -> x, y, width, height in pixels; the photos lie beside it."""
    folder = uri.rsplit("/", 1)[0]
    found = []
    for name, box in json.loads(storage.read(uri)).items():
        photo = uris.join(folder, name)
        width, height = Image.open(BytesIO(storage.read(photo))).size
        mask = np.zeros((height, width), bool)
        mask[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = True
        found.append((photo, mask))
    return found


def train_detector(config: LocalizationBenchmarkConfig, photos: Sequence[str]) -> AttentDifferNet:
    """Trains the asked variant, and fits what its place needs."""
    settings = get_preset(config.variant).model_dump() | {"weights": config.weights, "precision": config.precision}
    detector = DetectorConfig.model_validate(settings)
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


def map_photos(detector: AttentDifferNet, images: Tensor) -> Mapping[str, Tensor]:
    """Maps photos in every way, by its name; ``positions`` is what scoring stores."""
    _, positions = detector.inspect_as_trained(images)
    found = map_gradients(detector, images)
    if positions is not None:
        found["positions"] = positions
    count = len(images)
    found["centre"] = torch.from_numpy(draw_centre()).expand(count, -1, -1)
    found["uniform"] = torch.zeros(count, 1, 1)
    return found


def draw_centre(side: int = 28) -> npt.NDArray[np.float32]:
    """Draws a Gaussian in the middle, (side, side)."""
    along = ((np.arange(side) + 0.5) / side - 0.5) ** 2
    return np.exp(-(along[:, None] + along[None]) / (2 * _CENTRE_SIGMA**2)).astype(np.float32)
