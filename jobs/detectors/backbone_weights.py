"""The backbone's weights, in the driver, before any cluster work: whatever is wrong with them is a wrong request."""

from __future__ import annotations

import torch

from jobs import storage
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris
from model.config import DetectorConfig
from model.network.backbone import Backbone
from model.network.weights import WeightsUnavailableError, resolve_backbone_weights


def load_backbone_weights(detector: DetectorConfig, *, asked_as: str) -> dict[str, torch.Tensor] | None:
    """Loads the weights by name and tries them on the backbone; None where they are random.

    Args:
        detector: its backbone and its weights.
        asked_as: what the request calls them, for the message.

    Raises:
        RequestError: they cannot be had, or do not fit.
    """
    try:
        weights = resolve_backbone_weights(detector, read=lambda uri: storage.read(uris.normalize(uri)))
        if weights is not None:
            Backbone(detector).load_features(weights)
        return weights
    except (WeightsUnavailableError, ValueError, MissingObjectError) as error:
        raise RequestError(f"{asked_as}: {error}") from error
