"""Looks at a training after every epoch: at the health of its features and the likelihood of held-out photos."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.network.flow import compute_nll
from model.network.gates import record_gates
from model.network.rotation import list_scoring_angles
from model.training.collapse_guard import FeatureHealth, compare_features
from model.training.likelihood import trains_jointly
from model.training.photos import Photos
from model.training.views import ComputedViews, compute_view_features

_SAMPLE_VIEWS = 128
_FLOW_BATCH = 1024


class EpochMonitor:
    """Fixed views of some training photos, and of all validation photos."""

    def __init__(
        self, detector: AttentDifferNet, photos: Photos, *, validation: Photos | None, rng: np.random.Generator
    ) -> None:
        """Draws the sample and computes its plain features."""
        self._detector, self._validation = detector, validation
        self._views = ComputedViews(detector, photos)
        count = max(2, math.ceil(_SAMPLE_VIEWS / detector.config.train_views))
        self._photos = torch.from_numpy(rng.permutation(len(photos))[:count].copy())
        self._drawn = self._views.draw(rng)[self._photos]
        blocks = detector.config.attention.values()
        self._moves = bool(blocks) and (
            detector.config.attention_training != "frozen" or any(block.gate != "identity" for block in blocks)
        )
        self._plain = self._pool(attended=False)
        self._attended: tuple[Tensor, float | None] | None = None
        self._validation_features: Tensor | None = None

    def measure_health(self) -> FeatureHealth:
        """Compares the attended features of the sample with the plain ones."""
        if self._attended is None or trains_jointly(self._detector):
            self._attended = self._attend()
        attended, gate_mean = self._attended
        if trains_jointly(self._detector):
            self._detector.fit_feature_scaling(attended)
        saturation = self._detector.flow.saturation(self._detector.scale_features(attended))
        return compare_features(plain=self._plain, attended=attended, gate_mean=gate_mean, saturation=saturation)

    def _attend(self) -> tuple[Tensor, float | None]:
        """Computes the attended features of the sample and the mean gate, None without gates."""
        if not self._moves:
            return self._plain, None
        with record_gates(self._detector.backbone.attention) as gates:
            attended = self._pool(attended=True)
        return attended, float(torch.stack([gate.double().mean() for gate in gates]).mean()) if gates else None

    @torch.no_grad()
    def compute_validation_loss(self) -> float | None:
        """Computes the validation photos' mean negative log-likelihood, nats per dimension; None without photos."""
        if self._validation is None or len(self._validation) == 0:
            return None
        if self._validation_features is None or trains_jointly(self._detector):
            self._validation_features = compute_view_features(
                self._detector, self._validation, angles=self._choose_angles()
            )
        scaled = self._detector.scale_features(self._validation_features.flatten(0, 1))
        self._detector.flow.eval()
        losses = [compute_nll(*self._detector.flow(rows)) * len(rows) for rows in torch.split(scaled, _FLOW_BATCH)]
        return float(torch.stack(losses).sum() / len(scaled))

    def _choose_angles(self) -> tuple[float, ...]:
        """Chooses ``train_views`` angles, evenly spread, that training takes too."""
        config = self._detector.config
        if config.train_angles == "uniform":
            return list_scoring_angles(config.train_views)
        return list_scoring_angles(config.views)[:: config.views // config.train_views][: config.train_views]

    @torch.no_grad()
    def _pool(self, *, attended: bool) -> Tensor:
        chunks = zip(torch.split(self._photos, 8), torch.split(self._drawn, 8), strict=True)
        return torch.cat(
            [
                self._detector.pool_features(self._views.rotate_photos(some, drawn), attended=attended)
                for some, drawn in chunks
            ]
        )
