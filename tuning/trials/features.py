"""Frozen features, computed once for all trials whose network is the same up to the flow.

Features depend on the extractor alone: backbone, attention and how it learns, stage, pooling, scales, size, views.
Trials that differ in flow, optimizer or feature scaling share them, learnt attention included. Two extractors that only
begin alike share nothing: their maps take some 300 KB a view and scale, a hundred times the pooled features.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from jobs.detectors.lineage import hash_json
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.network.rotation import list_scoring_angles
from model.network.scaling import DEAD_CHANNEL_STD
from model.training.attention_pretext import prepare_attention
from model.training.likelihood import trains_jointly
from model.training.photos import InMemory
from model.training.views import compute_view_features
from model.training.workers import sum_over_workers
from tuning.trials.photos import SearchPhotos, add_synthetic_defects, shift_photos, to_tensor

Arrays = dict[str, npt.NDArray[Any]]
MAX_BYTES = 1_000_000_000
"""Size of all features that are kept; the least recently used go first."""
_ATTENTION = "attention."
_EXTRACTOR = {"backbone", "weights", "image_size", "feature_stage", "scales", "pooling", "views", "rotation_padding"}
_LEARNT = {"seed", "attention", "attention_training", "pretext", "train_angles", "collapse_guard"}


class FeatureCache:
    """Keeps features in an actor of the cluster, so that they outlive the trial that computed them."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Starts empty."""
        self._kept: OrderedDict[str, Arrays] = OrderedDict()
        self._max_bytes = max_bytes
        self.counts = {"found": 0, "computed": 0}

    def get(self, key: str) -> Arrays | None:
        """Returns what was put under ``key``, or None."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            self.counts["found"] += 1
        return found

    def put(self, key: str, arrays: Arrays) -> None:
        """Keeps features; drops the least recently used where there are too many."""
        self.counts["computed"] += 1
        self._kept[key] = arrays
        while len(self._kept) > 1 and sum(map(count_bytes, self._kept.values())) > self._max_bytes:
            self._kept.popitem(last=False)

    def read_counts(self) -> dict[str, int]:
        """Reads how often features were found and computed."""
        return dict(self.counts)


def count_bytes(arrays: Arrays) -> int:
    """Counts the bytes of all arrays."""
    return sum(array.nbytes for array in arrays.values())


def hash_extractor(config: DetectorConfig, *, photos_hash: str) -> str:
    """Names what the features of some photos depend on: 16 hex digits."""
    names = {*_EXTRACTOR, "precision", "tiles", "tile_overlap"}
    if config.attention or config.weights == "random":
        names |= _LEARNT
    asked = [config.model_dump(mode="json", include=names), photos_hash]
    return hash_json(asked)


@dataclass(frozen=True)
class Features:
    """Pooled features, unscaled: (photos, views, D) each.

    Attributes:
        train: of the photos that train, at all scoring angles.
        held_out: of flawless photos that do not.
        shifted: of the same, shifted (`tuning.trials.photos.shift_photos`).
        synthetic: of the same with a synthetic defect.
        labelled: of the validation photos.
        gaussian_loss: of the held-out photos under a Ledoit-Wolf Gaussian of ``train``, nats per dimension of pooled
            features, without the constant 0.5 * log(2 pi).
    """

    train: Tensor
    held_out: Tensor
    shifted: Tensor
    synthetic: Tensor
    labelled: Tensor
    gaussian_loss: float


@dataclass
class Extractor:
    """Trains a detector's attention and computes features, or takes both from the cache.

    Attributes:
        photos: decoded to the detector's size.
        photos_hash: their name.
        cache: handle of a FeatureCache.
    """

    photos: SearchPhotos
    photos_hash: str
    cache: Any
    _parts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def prepare(self, detector: AttentDifferNet) -> Features | None:
        """Prepares attention in place and returns the features; every worker of a trial must call it.

        Returns:
            None where attention is trained together with the flow, so that features are not what they will be.

        Raises:
            DivergenceError, ValueError: attention cannot be trained, see `prepare_attention`.
        """
        if trains_jointly(detector):
            return None
        key = hash_extractor(detector.config, photos_hash=self.photos_hash)
        kept = self._find(key)
        device = detector.image_mean.device
        # Workers compute together or not at all, and between two questions somebody else may have put the answer.
        found = sum_over_workers(torch.tensor([kept is not None, 1], dtype=torch.float32, device=device))
        if kept is not None and found[0] == found[1]:
            tensors = {name: torch.tensor(array, device=device) for name, array in kept.items()}
            attention = {name.removeprefix(_ATTENTION): tensors.pop(name) for name in kept if _ATTENTION in name}
            detector.backbone.attention.load_state_dict(attention)
            return to_features(tensors)
        if detector.config.attention:
            prepare_attention(detector, InMemory(to_tensor(self.photos.train)), None)
        tensors = self._extract_all(detector)
        state = {_ATTENTION + name: value for name, value in detector.backbone.attention.state_dict().items()}
        arrays = {name: value.detach().cpu().numpy() for name, value in {**tensors, **state}.items()}
        with suppress(ray.exceptions.RayError):  # see _find
            ray.get(self.cache.put.remote(key, arrays))
        return to_features(tensors)

    def _find(self, key: str) -> Arrays | None:
        """Finds features in the cache; None also where the cache has died: nothing depends on it."""
        try:
            found: Arrays | None = ray.get(self.cache.get.remote(key))
        except ray.exceptions.RayError:
            return None
        return found

    def extract(self, detector: AttentDifferNet) -> Features:
        """Extracts the features of a detector as it is now; every worker of a trial must call it."""
        return to_features(self._extract_all(detector))

    def _extract_all(self, detector: AttentDifferNet) -> dict[str, Tensor]:
        angles = list_scoring_angles(detector.config.views)
        found = {
            name: compute_view_features(detector, InMemory(images), angles=angles)
            for name, images in self._split_images().items()
        }
        return {
            **found,
            "gaussian_loss": compute_gaussian_loss(found["train"].flatten(0, 1), found["held_out"].flatten(0, 1)),
        }

    def _split_images(self) -> dict[str, Tensor]:
        if not self._parts:
            held_out = to_tensor(self.photos.held_out)
            self._parts = {
                "train": to_tensor(self.photos.train),
                "held_out": held_out,
                "shifted": shift_photos(held_out),
                "synthetic": add_synthetic_defects(held_out),
                "labelled": to_tensor(self.photos.labelled),
            }
        return self._parts


def to_features(tensors: dict[str, Tensor]) -> Features:
    """Converts tensors by name to Features."""
    parts = {name: tensors[name] for name in ("train", "held_out", "shifted", "synthetic", "labelled")}
    return Features(**parts, gaussian_loss=float(tensors["gaussian_loss"]))


def compute_gaussian_loss(train: Tensor, held_out: Tensor) -> Tensor:
    """Computes the mean negative log-likelihood of ``held_out`` (M, D) under a Gaussian of ``train`` (N, D).

    The covariance is Ledoit and Wolf's (Journal of Multivariate Analysis 88, 2004).

    Returns:
        A scalar, float64, nats per dimension, without the constant 0.5 * log(2 pi).
    """
    mean = train.double().mean(0)
    std = (train.double() - mean).square().mean(0).sqrt()
    unit = float(std.mean().clamp_min(torch.finfo(torch.float32).tiny))
    centred = ((train.double() - mean) / unit).cpu().numpy()
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    # Channels that never vary would make it singular where shrinkage is small.
    covariance[np.diag_indices_from(covariance)] += DEAD_CHANNEL_STD**2 * 1e-2
    factor = torch.linalg.cholesky(torch.from_numpy(covariance))
    distances = torch.linalg.solve_triangular(factor, ((held_out.double() - mean) / unit).cpu().T, upper=False)
    half_log_det = factor.diagonal().log().mean() + math.log(unit)
    loss: Tensor = 0.5 * distances.square().mean() + half_log_det
    return loss
