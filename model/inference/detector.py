"""A detector made ready to score: close to what the machine can do, and nothing left to train.

``AttentDifferNet`` computes the same in the order that training needs; tests/model/inference holds the two together.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import torch
from torch import Tensor

from model.detector import AttentDifferNet, check_images, use_evaluation_mode
from model.hardware import has_fast_bf16
from model.inference.backbone import CompiledBackbone
from model.inference.flow import HalfFlow
from model.localization.gaussians import PositionGaussians
from model.network.backbone import Backbone
from model.network.flow import compute_mean_squared_latents
from model.network.rotation import list_scoring_angles
from model.tiling import combine_scores, cut_tiles, place_maps

_VIEWS_PER_PASS = 16
_MAX_VIEWS_PER_PASS = 256
_SHARE_OF_FREE_MEMORY = 0.25
_FLOATS_PER_PIXEL = 12
"""Of a view in memory at a time: it and its normalized copies, which are larger than the first convolution's map."""


class CompiledDetector:
    """Scores photos in bf16 on a CPU that is fast at it, with copies of a detector's weights.

    Attributes:
        backbone: convolutions and attention; detectors with equal ones may share it.
    """

    def __init__(self, detector: AttentDifferNet, *, backbone: CompiledBackbone | None = None) -> None:
        """Compiles the backbone and copies the flow.

        Args:
            detector: on the CPU, in evaluation mode.
            backbone: of a detector with the same backbone, attention, image size and pooling; None compiles its own.
        """
        self.backbone = backbone or CompiledBackbone(
            detector.backbone,
            detector.config,
            mean=detector.image_mean,
            std=detector.image_std,
            mapped_stages=0 if detector.positions is None else detector.positions.stages,
        )
        self._positions = copy.deepcopy(detector.positions)
        self._projections = [] if self._positions is None else self._positions.list_projections()
        self._image_size = detector.config.image_size
        self._tiles, self._top_tiles = detector.config.tile_grid, detector.config.top_tiles
        self._angles = list_scoring_angles(detector.config.views)
        self._scaling = detector.feature_scaling()
        self._flow = HalfFlow(detector.flow)

    @property
    def size_bytes(self) -> int:
        """Memory of the flow's weights and the scaling, which no other detector shares."""
        positions = 0 if self._positions is None else self._positions.size_bytes
        return self._flow.size_bytes + self._scaling.size_bytes + positions

    @torch.inference_mode()
    def score(self, images: Tensor) -> Tensor:
        """Scores photos, uint8 (B, 3, H, W) RGB; as `AttentDifferNet.score` does.

        Args:
            images: on any device; they are moved to the CPU.

        Returns:
            float64 (B,), the mean of z^2 over views and dimensions, combined over tiles.

        Raises:
            ValueError: images of another type or shape.
        """
        return self._inspect(images, None)[0]

    @torch.inference_mode()
    def inspect(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores images and maps where they deviate; as `AttentDifferNet.inspect_as_trained` does."""
        return self._inspect(images, self._positions)

    def _inspect(self, images: Tensor, positions: PositionGaussians | None) -> tuple[Tensor, Tensor | None]:
        check_images(images, side_px=self._image_size, tiles=self._tiles)
        if len(images) == 0:
            return torch.empty(0, dtype=torch.float64), None
        pooled, measured = [], []
        cut = cut_tiles(images.cpu(), self._tiles, side=self._image_size)
        for features, distances in self.backbone.pool_groups(cut, self._angles, projections=self._projections):
            pooled.append(features)
            measured.append(distances)
        squared = compute_mean_squared_latents(self._flow.latents, self._scaling.apply(torch.cat(pooled)))
        scores = squared.view(len(cut), -1).mean(1)
        combined = combine_scores(scores, count=self._tiles.total, top=self._top_tiles)
        if positions is None:
            return combined, None
        deviations = positions.combine([torch.cat(stage) for stage in zip(*measured, strict=True)])
        return combined, place_maps(deviations, scores, self._tiles)


class EagerScorer:
    """Scores photos by the detector itself, with the weights that it has at each call.

    Attributes:
        detector: in evaluation mode.
    """

    def __init__(self, detector: AttentDifferNet) -> None:
        """Takes a detector on any device."""
        self.detector = detector
        self._views_per_pass = choose_views_per_pass(detector.image_mean.device, image_size=detector.config.image_size)

    @property
    def backbone(self) -> Backbone:
        """The detector's backbone; detectors with equal ones may share it."""
        return self.detector.backbone

    @property
    def size_bytes(self) -> int:
        """Memory of all weights but the backbone's."""
        state = self.detector.state_dict()
        return sum(tensor.nbytes for name, tensor in state.items() if not name.startswith("backbone."))

    def score(self, images: Tensor) -> Tensor:
        """Scores photos, uint8 (B, 3, H, W) RGB to float64 (B,); see `AttentDifferNet.score_as_trained`."""
        return self.detector.score_as_trained(images, conv_batch=self._views_per_pass)

    def inspect(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores images and maps where they deviate; see `AttentDifferNet.inspect_as_trained`."""
        return self.detector.inspect_as_trained(images, conv_batch=self._views_per_pass)


Scorer: TypeAlias = CompiledDetector | EagerScorer
"""What scores batch after batch."""


def build_scorer(detector: AttentDifferNet, *, sharing: Scorer | None = None) -> Scorer:
    """Builds what scores batch after batch in the detector's precision, with the weights as they are now.

    On a CPU that is fast at it, bf16 is compiled, which is worth keeping for more than one batch. All else is computed
    as in training: fp32, bf16 on a GPU, and bf16 on a slow CPU, which is as slow as fp32 and rounds as bf16 does.

    Args:
        detector: on any device.
        sharing: of a detector with the same backbone, attention, image size, pooling and precision, to share the
            memory of the backbone with; None shares nothing.
    """
    device = detector.image_mean.device
    if detector.config.precision == "bf16" and device.type == "cpu" and has_fast_bf16(device):
        shared = sharing.backbone if isinstance(sharing, CompiledDetector) else None
        with torch.no_grad(), use_evaluation_mode(detector):
            return CompiledDetector(detector, backbone=shared)
    if isinstance(sharing, EagerScorer):
        detector.backbone = sharing.backbone
    return EagerScorer(detector)


def choose_views_per_pass(device: torch.device, *, image_size: int) -> int:
    """Chooses the views in one pass of the backbone; on a GPU a power of two that a share of its free memory takes."""
    if device.type != "cuda":
        return _VIEWS_PER_PASS
    free_bytes, _ = torch.cuda.mem_get_info(device)
    view_bytes = _FLOATS_PER_PIXEL * image_size**2 * torch.float32.itemsize
    fitting = max(1, int(_SHARE_OF_FREE_MEMORY * free_bytes / view_bytes))
    return min(_MAX_VIEWS_PER_PASS, 1 << (fitting.bit_length() - 1))
