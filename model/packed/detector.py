"""A detector made ready to score in bf16: close to what the machine's matrix unit can do, and nothing left to train.

``AttentDifferNet`` computes the same in the order that training needs; tests/test_packed.py holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.network.flow import compute_mean_squared_latents
from model.network.rotation import list_scoring_angles
from model.packed.backbone import PackedBackbone
from model.packed.flow import PackedFlow

if TYPE_CHECKING:
    from model.detector import AttentDifferNet


class PackedDetector:
    """Scores photos with bf16 copies of a detector's weights.

    Attributes:
        backbone: convolutions and attention; detectors with equal ones may share it.
    """

    def __init__(self, detector: AttentDifferNet, *, backbone: PackedBackbone | None = None) -> None:
        """Packs copies of the weights, on their device.

        Args:
            detector: in evaluation mode.
            backbone: of a detector with the same backbone, attention, views layout and pooling; None packs its own.
        """
        self.backbone = backbone or PackedBackbone(
            detector.backbone,
            detector.config,
            mean=detector.image_mean.flatten(),
            std=detector.image_std.flatten(),
        )
        self._angles = list_scoring_angles(detector.config.views)
        self._scaling = detector.feature_scaling()
        self._flow = PackedFlow(detector.flow)

    @property
    def size_bytes(self) -> int:
        """Memory of the flow's weights and the scaling, which no other detector shares."""
        return self._flow.size_bytes + self._scaling.size_bytes

    @torch.inference_mode()
    def score(self, images: Tensor) -> Tensor:
        """Scores images, uint8 (B, 3, S, S) RGB on the detector's device; as `AttentDifferNet.score` does.

        Returns:
            float64 (B,), the mean of z^2 over views and dimensions.
        """
        if len(images) == 0:
            return torch.empty(0, dtype=torch.float64, device=images.device)
        pooled = self.backbone.pooled(images, self._angles)
        squared = compute_mean_squared_latents(self._flow.latents, self._scaling.apply(pooled))
        return squared.view(len(images), -1).mean(1)
