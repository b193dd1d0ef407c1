"""Photos whose defects are marked: by masks in MVTec's layout, or by boxes in a JSON file beside the photos."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
from PIL import Image

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, list_labelled
from jobs.benchmarks.config import LocalizationBenchmarkConfig
from jobs.errors import RequestError
from jobs.storage import uris
from model.localization.metrics import Mask

MarkedPhoto = tuple[str, Mask]
"""The URI of a photo, and what is marked in it."""


def list_photos(config: LocalizationBenchmarkConfig) -> tuple[list[str], list[MarkedPhoto]]:
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
    marked = [(uri, mask) for uri, mask in found if mask.any()]
    if not training or not marked:
        raise RequestError(
            f"{config.data} needs photos in train/good and marked ones in test/<defect>, got {len(rows)}"
        )
    return training, draw_photos(marked, count=config.photos, seed=config.draw_seed)


def draw_photos(marked: list[MarkedPhoto], *, count: int | None, seed: int) -> list[MarkedPhoto]:
    """Draws photos at random, in their order; None, and more than there are, keep all."""
    if count is None or count >= len(marked):
        return marked
    chosen = np.random.default_rng(seed).choice(len(marked), size=count, replace=False)
    return [marked[number] for number in sorted(chosen)]


def locate_mask(photo: str) -> str:
    """Returns where MVTec's layout has a photo's mask: test/<defect>/x.jpg -> ground_truth/<defect>/x_mask.png."""
    folder, name = photo.rsplit("/", 1)
    above, defect = folder.rsplit("/", 1)
    return f"{above.removesuffix('/test')}/ground_truth/{defect}/{name.rsplit('.', 1)[0]}_mask.png"


def read_mask(uri: str) -> Mask:
    """Reads a mask; light is marked."""
    return np.asarray(Image.open(BytesIO(storage.read(uri))).convert("L")) > 127


def read_boxes(uri: str) -> list[MarkedPhoto]:
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
