"""Attention's own map, of blocks that gate positions."""

from __future__ import annotations

import pytest
import torch

from model.config import AttentionConfig
from model.detector import AttentDifferNet
from model.localization.gates import map_spatial_gates
from model.network.attention import CBAM
from tests.support.detectors import build_config, draw_images


def _build(kind: str) -> AttentDifferNet:
    attention = {stage: AttentionConfig.model_validate({"kind": kind}) for stage in ("pool1", "pool2")}
    return AttentDifferNet(build_config(image_size=128, attention=attention)).eval()


def test_an_untrained_gate_lets_every_position_pass_alike() -> None:
    maps = map_spatial_gates(_build("cbam"), draw_images(2, side=128))
    assert maps is not None
    assert maps.shape[0] == 2
    assert torch.equal(maps, torch.ones_like(maps))


def test_the_map_follows_what_the_gate_sees_and_leaves_no_hook_behind() -> None:
    detector = _build("cbam")
    blocks = list(detector.backbone.attention.modules())
    for block in blocks:
        if isinstance(block, CBAM):
            torch.nn.init.constant_(block.conv.weight, 1e-3)
    images = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    images[1, :, 80:112, 16:48] = 255
    maps = map_spatial_gates(detector, images)
    assert maps is not None
    changed = (maps[1] - maps[0]).abs()
    row, column = divmod(int(changed.argmax()), maps.shape[2])
    assert 80 <= (row + 0.5) * 128 / maps.shape[1] <= 112
    assert 16 <= (column + 0.5) * 128 / maps.shape[2] <= 48
    assert not any(block._forward_hooks for block in blocks)


@pytest.mark.parametrize("kind", ["se", "eca"])
def test_attention_to_channels_alone_has_no_map(kind: str) -> None:
    assert map_spatial_gates(_build(kind), draw_images(1, side=128)) is None
