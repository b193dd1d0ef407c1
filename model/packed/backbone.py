"""A backbone made for scoring: uint8 photos to pooled features in pure bf16, normalisation folded into the weights.

``model.network.backbone`` is what it must agree with, up to the rounding of bf16 (tests/model/packed).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.config import DetectorConfig
from model.network.backbone import Backbone
from model.packed.layers import Layer, PackedConvolution, pack_layers
from model.packed.view_layout import PIXEL_CHANNELS, ZERO_POINT, Blocks, ViewLayout

_VIEWS_AT_ONCE = 4
"""Views of the full scale in one pass on a CPU, four times as many of each smaller one: maps that fit its caches."""
_SHARE_OF_FREE_MEMORY = 0.25
_MAPS_AT_ONCE = 4
"""Of the first convolution's size, in memory at a time."""


class PackedBackbone:
    """Convolutions and attention of one backbone, and the layout of its views.

    Attributes:
        layout: of the views.
    """

    def __init__(self, backbone: Backbone, config: DetectorConfig, *, mean: Tensor, std: Tensor) -> None:
        """Packs copies of the weights, on their device.

        Args:
            backbone: in evaluation mode; its attention is kept, not copied.
            config: what it was built from.
            mean: (3,) that is subtracted from colours in 0..1.
            std: (3,) that divides them then.
        """
        first, *rest = backbone.list_used_layers()
        if not isinstance(first, nn.Conv2d) or first.groups != 1:
            raise ValueError(f"needed a first layer that is a convolution without groups, got {first}")
        grey = [round(float(value) * 255) for value in mean]
        self.layout = ViewLayout(
            first, image_size=config.image_size, scales=config.scales, padding=config.rotation_padding, mean=grey
        )
        # One geometry serves all scales: kernel, stride and padding, and with them block and taps, are the same.
        folded = fold_normalization(first, self.layout.blocks[0], mean=mean, std=std, grey=grey)
        self._layers: list[Layer] = [PackedConvolution(folded, relu=True)]
        self._attention = backbone.attention
        self._stages = [""]
        for end, layer in pack_layers(rest):
            self._layers.append(layer)
            self._stages.append(backbone.stage_ending_at(end + 1))
        self._with_maximum = config.pooling == "average_max"
        self._views_at_once = choose_views_at_once(
            folded.weight.device, map_bytes=self.layout.map_bytes, scales=config.scales
        )

    def pool(self, images: Tensor, angles: Sequence[float]) -> Tensor:
        """Pools the features of rotated views, photo by photo: float32 (B * T, D), as `Backbone.forward` has them.

        Args:
            images: uint8 (B, 3, S, S) RGB with B >= 1, on the backbone's device.
            angles: T degrees.
        """
        most = max(self._views_at_once)
        groups = [angles[start : start + most] for start in range(0, len(angles), most)]
        packed_photos = map(self.layout.pixels, torch.split(images, max(1, most // len(angles))))
        return torch.cat([self._pool_views(pixels, group) for pixels in packed_photos for group in groups])

    def _pool_views(self, pixels: Tensor, angles: Sequence[float]) -> Tensor:
        rotations = [self.layout.rotation(angle, pixels.device) for angle in angles]
        shown = [(photo, rotation) for photo in pixels for rotation in rotations]
        return torch.cat([self._pool_scale(shown, scale) for scale in range(len(self._views_at_once))], dim=1)

    def _pool_scale(self, shown: Sequence[tuple[Tensor, Sequence[Tensor]]], scale: int) -> Tensor:
        """Passes of one shape, the last one filled up: no score depends on how many views there are.

        All passes read their views from the same memory, which stays in a CPU's caches.
        """
        at_once = self._views_at_once[scale]
        views = shown[0][0].new_zeros(at_once, self.layout.blocks[scale].pixels)
        passes = []
        for start in range(0, len(shown), at_once):
            self.layout.views(shown[start : start + at_once], scale=scale, into=views)
            passes.append(self._pool(self._compute_feature_map(self.layout.input(views, scale))))
        return torch.cat(passes)[: len(shown)]

    def _compute_feature_map(self, blocks: Tensor) -> Tensor:
        maps = blocks
        for layer, stage in zip(self._layers, self._stages, strict=True):
            maps = layer(maps)
            if stage in self._attention:
                maps = self._attention[stage](maps)
        return maps

    def _pool(self, maps: Tensor) -> Tensor:
        average = maps.mean((2, 3), dtype=torch.float32)
        return torch.cat([average, maps.amax((2, 3)).float()], dim=1) if self._with_maximum else average


def choose_views_at_once(device: torch.device, *, map_bytes: int, scales: int) -> Sequence[int]:
    """Chooses the views in one pass, by scale; on a GPU a power of two up to 256 that a share of free memory takes."""
    if device.type != "cuda":
        return [_VIEWS_AT_ONCE * 4**scale for scale in range(scales)]
    free_bytes, _ = torch.cuda.mem_get_info(device)
    fitting = int(_SHARE_OF_FREE_MEMORY * free_bytes / (_MAPS_AT_ONCE * map_bytes))
    # The same at each scale: there is no cache to fit, and more would be filled up with views that nobody asked for.
    return [int(2 ** min(8, max(0, fitting.bit_length() - 1)))] * scales


def fold_normalization(
    convolution: nn.Conv2d, blocks: Blocks, *, mean: Tensor, std: Tensor, grey: Sequence[int]
) -> nn.Conv2d:
    """Builds the first convolution over blocks of raw pixels: equal to that over normalised ones, padding included.

    The shift of the colours is computed from weights that are rounded already, or their rounding would add up over the
    photo's mean. The fourth channel is 1 in the padding and makes up for the mean's fraction that ``grey`` lost there.
    """
    raw = convolution.weight.detach().float() / (255 * std.view(1, 3, 1, 1))
    raw = raw.to(torch.bfloat16).float()
    centre = 255 * mean.view(1, 3, 1, 1)
    lost = (raw * (torch.tensor(grey, device=raw.device).view(1, 3, 1, 1) - centre)).sum(1, keepdim=True)
    out, _, kernel, _ = raw.shape
    side = blocks.taps * blocks.block
    weight = raw.new_zeros(out, PIXEL_CHANNELS, side, side)
    weight[:, :, :kernel, :kernel] = torch.cat([raw, -lost], dim=1)
    by_block = weight.view(out, PIXEL_CHANNELS, blocks.taps, blocks.block, blocks.taps, blocks.block)
    over_blocks = by_block.permute(0, 3, 5, 1, 2, 4).reshape(out, blocks.channels, blocks.taps, blocks.taps)
    bias = 0 if convolution.bias is None else convolution.bias.detach()
    folded = nn.Conv2d(blocks.channels, out, blocks.taps, device=raw.device)
    folded.load_state_dict({"weight": over_blocks, "bias": bias + (raw * (ZERO_POINT - centre)).sum((1, 2, 3))})
    return folded
