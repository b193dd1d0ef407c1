"""The backbone's weights, in the driver, before any cluster work: whatever is wrong with them is a wrong request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

import torch

from jobs import storage
from jobs.errors import MissingObjectError, RefusedError, RequestError
from jobs.storage import uris
from model.config import BACKBONE_STAGES, DetectorConfig
from model.network.backbone import Backbone
from model.network.fitting import find_network_of
from model.network.weights import WeightsUnavailableError, resolve_backbone_weights


class WeightsFiles:
    """The weights files of one run, each read once: what names a detector's weights is of the bytes that it got."""

    def __init__(self) -> None:
        """Begins without any file."""
        self._content: dict[str, bytes] = {}

    def read(self, uri: str) -> bytes:
        """Returns the content of a file. Raises MissingObjectError where it is not there."""
        place = uris.normalize(uri)
        if place not in self._content:
            self._content[place] = storage.read(place)
        return self._content[place]


def hash_backbone_weights(detector: DetectorConfig, files: WeightsFiles, *, asked_as: str) -> str:
    """Names the bytes of a weights file, 64 hex digits; weights of a name of ours, such as imagenet, are that name.

    Args:
        detector: its weights.
        files: of the run.
        asked_as: what the request calls them, for the message.

    Raises:
        RequestError: the file is not there, or is none.
    """
    if detector.weights in ("imagenet", "random"):
        return detector.weights
    try:
        return hashlib.sha256(files.read(detector.weights)).hexdigest()
    except (MissingObjectError, RefusedError) as error:
        raise RequestError(f"{asked_as}: {error}") from error


def load_backbone_weights(
    detector: DetectorConfig, files: WeightsFiles | None = None, *, asked_as: str
) -> dict[str, torch.Tensor] | None:
    """Loads the weights by name and tries them on the backbone; None where they are random.

    Args:
        detector: its backbone and its weights.
        files: of the run, where their bytes have been named before.
        asked_as: what the request calls them, for the message.

    Raises:
        RequestError: they cannot be had, or do not fit.
    """
    weights = None
    check_backbone(detector)
    try:
        weights = resolve_backbone_weights(detector, read=(files or WeightsFiles()).read)
        if weights is not None:
            Backbone(detector).load_features(weights)
        return weights
    except (WeightsUnavailableError, MissingObjectError, RefusedError) as error:
        raise RequestError(f"{asked_as}: {error}") from error
    except ValueError as error:
        raise RequestError(f"{asked_as}: {error}{suggest_backbone(detector, weights)}") from error


def check_backbone(detector: DetectorConfig) -> None:
    """Builds the backbone without weights.

    Raises:
        RequestError: there is no such network or stage, or it does not take such photos.
    """
    try:
        with torch.device("meta"):
            Backbone(detector)
    except ValueError as error:
        raise RequestError(f"--detector.backbone {detector.backbone}: {error}") from error


def suggest_backbone(detector: DetectorConfig, weights: Mapping[str, torch.Tensor] | None) -> str:
    """Says which other backbone these weights fit, and the flag for it; an empty string where they fit none."""
    found = find_other_backbone(detector, weights) if weights else None
    return f"; this file looks like {found}: add --detector.backbone {found}" if found else ""


def find_other_backbone(detector: DetectorConfig, weights: Mapping[str, torch.Tensor]) -> str | None:
    """Finds another backbone that weights, by name, fit; None where they fit none that is known."""
    for name in BACKBONE_STAGES.keys() - {detector.backbone}:
        other = DetectorConfig.model_validate({"backbone": name, "weights": "random"})
        with suppress(ValueError):
            Backbone(other).load_features(weights)
            return name
    return find_network_of(weights)
