"""Detectors that are built in milliseconds, and images for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.config import DetectorConfig, FlowConfig
from model.hardware import has_fast_bf16

SIDE_PX = 64


def build_config(**parts: object) -> DetectorConfig:
    """Builds the settings of a detector without attention for images of ``SIDE_PX``; ``parts`` replace its fields."""
    small: dict[str, object] = {
        "image_size": SIDE_PX,
        "scales": 1,
        "weights": "random",
        "flow": FlowConfig(blocks=2, hidden_width=16, hidden_layers=1),
        "views": 4,
    }
    return DetectorConfig(**small | parts)


def draw_images(count: int = 3, *, side: int = SIDE_PX) -> Tensor:
    """Draws images of noise, (count, 3, side, side) uint8, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def draw_features(rows: int = 50) -> Tensor:
    """Draws pooled features, (rows, 256), whose channels differ in spread by 40 times."""
    spread = torch.linspace(0.5, 20, 256)
    return torch.randn(rows, 256, generator=torch.Generator().manual_seed(0)) * spread + 7


GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="needs an NVIDIA GPU: none is here")
)
"""A parameter ``device`` of tests that also hold on a GPU."""


TINY = {
    "weights": "random",
    "image_size": 128,
    "scales": 2,
    "views": 4,
    "train_views": 2,
    "train_angles": "scoring",
    "feature_scaling": "channel",
    "flow": {"blocks": 2, "hidden_width": 32, "hidden_layers": 1},
    "pretext": {"steps": 2, "pairs": 4},
}
"""Settings of a detector that trains in seconds, for tests of what happens around it."""

needs_fast_bf16 = pytest.mark.skipif(not has_fast_bf16("cpu"), reason="needs a CPU with AMX or AVX512-BF16")
"""Marks tests of compiled scoring on a CPU, which no other CPU ever enters."""
FAST_CPU = pytest.param("cpu", marks=needs_fast_bf16)
"""The CPU as a parameter ``device`` of such tests."""
