"""Pooled features of a comparison's photos, kept so that variants that share them compute them once.

They depend on the photos and on what comes before the flow: backbone, weights, stages, pooling, size and views.
"""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from jobs import storage
from jobs.detectors.lineage import hash_json
from jobs.errors import MissingObjectError
from jobs.evaluation.comparison_units import ComparisonUnit
from jobs.storage import uris
from model.detector import AttentDifferNet
from model.network.rotation import list_scoring_angles
from model.training.photos import InMemory
from model.training.views import compute_view_features
from model.versions import read_program_version

_EXTRACTOR = {
    "backbone",
    "weights",
    "image_size",
    "black",
    "resize",
    "white",
    "feature_stage",
    "pooling",
    "scales",
    "tiles",
    "tile_overlap",
    "views",
    "rotation_padding",
    "precision",
}
"""Fields of a detector without attention that decide its pooled features."""


def can_share_features(unit: ComparisonUnit) -> bool:
    """Tells whether a unit's features can be kept: no attention changes them, and training takes the scoring angles."""
    detector = unit.detector
    return unit.optimizer is not None and not detector.attention and detector.train_angles == "scoring"


def locate_features(unit: ComparisonUnit, output: str) -> str:
    """Returns where the features of a unit's photos are kept."""
    settings = unit.detector.model_dump(mode="json", include=_EXTRACTOR)
    if unit.detector.weights == "random":
        settings["seed"] = unit.detector.seed
    asked = {
        "detector": settings,
        "photos": unit.photos_hash,
        "weights": unit.weights_hash,
        "program": read_program_version(),
    }
    return uris.join(output, "features", f"{unit.category.replace('/', '-')}.{hash_json(asked)}.safetensors")


def read_or_compute_features(uri: str, detector: AttentDifferNet, photos: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads kept features, or computes and keeps them.

    Args:
        uri: of `locate_features`.
        detector: without attention, its weights loaded.
        photos: uint8 (N, 3, H, W) by name.

    Returns:
        Unscaled features (N, T, D) at all scoring angles, of all tiles, by the same names.
    """
    try:
        return safetensors.torch.load(storage.read(uri))
    except MissingObjectError:
        angles = list_scoring_angles(detector.config.views)
        with torch.inference_mode():
            computed = {
                name: compute_view_features(detector, InMemory(images), angles=angles) if len(images) else None
                for name, images in photos.items()
            }
        found = {name: values.clone() for name, values in computed.items() if values is not None}
        storage.write(uri, safetensors.torch.save(found))
        return found
