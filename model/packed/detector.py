"""A detector made ready to score in bf16: close to what the machine's matrix unit can do, and nothing left to train.

``AttentDifferNet`` computes the same in the order that training needs; tests/test_packed.py holds the two together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.detector import AttentDifferNet, check_images, use_evaluation_mode
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
        pooled = self.backbone.pooled(images.to(self._device), self._angles)
        squared = compute_mean_squared_latents(self._flow.latents, self._scaling.apply(pooled))
        return squared.view(len(images), -1).mean(1)


def build_scorer(detector: AttentDifferNet) -> AttentDifferNet | PackedDetector:
    """Builds what scores batch after batch in the detector's precision, with the weights as they are now.

    With fp32 that is the detector itself, with bf16 a `PackedDetector`, which is worth keeping for more than one batch.
    """
    if detector.config.precision == "fp32":
        return detector
    with torch.no_grad(), use_evaluation_mode(detector):
        return PackedDetector(detector)
