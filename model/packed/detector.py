"""A detector made ready to score in bf16: close to what the machine's matrix unit can do, and nothing left to train.

``AttentDifferNet`` computes the same in the order that training needs; tests/model/packed holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from model.detector import AttentDifferNet, check_images, use_evaluation_mode
from model.hardware import has_fast_bf16
from model.network.backbone import Backbone
from model.network.flow import compute_mean_squared_latents
from model.network.rotation import list_scoring_angles
from model.packed.backbone import PackedBackbone
from model.packed.flow import PackedFlow


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
        self._image_size, self._device = detector.config.image_size, detector.image_mean.device
        self._angles = list_scoring_angles(detector.config.views)
        self._scaling = detector.feature_scaling()
        self._flow = PackedFlow(detector.flow)

    @property
    def size_bytes(self) -> int:
        """Memory of the flow's weights and the scaling, which no other detector shares."""
        return self._flow.size_bytes + self._scaling.size_bytes

    @torch.inference_mode()
    def score(self, images: Tensor) -> Tensor:
        """Scores images, uint8 (B, 3, S, S) RGB; as `AttentDifferNet.score` does.

        Args:
            images: on any device; they are moved to the detector's.

        Returns:
            float64 (B,), the mean of z^2 over views and dimensions.

        Raises:
            ValueError: images of another type or shape.
        """
        check_images(images, side_px=self._image_size)
        if len(images) == 0:
            return torch.empty(0, dtype=torch.float64, device=self._device)
        pooled = self.backbone.pool(images.to(self._device), self._angles)
        squared = compute_mean_squared_latents(self._flow.latents, self._scaling.apply(pooled))
        return squared.view(len(images), -1).mean(1)


@dataclass(frozen=True)
class RoundingScorer:
    """Scores in bf16 on a CPU that is slow at it, as training computes there (`model.network.precision`).

    Attributes:
        detector: in evaluation mode, with the weights that it has at each call.
    """

    detector: AttentDifferNet

    @property
    def backbone(self) -> Backbone:
        """The detector's backbone; detectors with equal ones may share it."""
        return self.detector.backbone

    def score(self, images: Tensor) -> Tensor:
        """Scores images, uint8 (B, 3, S, S) RGB to float64 (B,); see `AttentDifferNet.score_as_trained`."""
        return self.detector.score_as_trained(images)


Scorer: TypeAlias = AttentDifferNet | PackedDetector | RoundingScorer
"""What scores batch after batch."""


def build_scorer(detector: AttentDifferNet, *, sharing: Scorer | None = None) -> Scorer:
    """Builds what scores batch after batch in the detector's precision, with the weights as they are now.

    With fp32 that is the detector itself. With bf16 it is a `PackedDetector`, which is worth keeping for more than one
    batch; on a CPU without fast bf16 a `RoundingScorer`, which is as slow as fp32 and rounds as bf16 does.

    Args:
        detector: on any device.
        sharing: of a detector with the same backbone, attention, layout of views, pooling and precision, to share the
            memory of the backbone with; None shares nothing.
    """
    is_packed = detector.config.precision == "bf16" and has_fast_bf16(detector.image_mean.device)
    if is_packed:
        shared = sharing.backbone if isinstance(sharing, PackedDetector) else None
        with torch.no_grad(), use_evaluation_mode(detector):
            return PackedDetector(detector, backbone=shared)
    if isinstance(sharing, AttentDifferNet | RoundingScorer):
        detector.backbone = sharing.backbone
    return detector if detector.config.precision == "fp32" else RoundingScorer(detector)
