"""Rotated views laid out as the first convolution of a backbone reads them: one gather from photo to input.

A convolution of stride b over 3 channels leaves most of a matrix unit idle. The same sums are a convolution of stride 1
over b * b * 4 channels if the pixels lie block by block ("space to depth"). A fixed rotation is one gather already
(model.network.rotation), so its index map also takes care of the scales, the zero padding and the blocks, and a view
costs one pass over its pixels. A pixel is 4 bytes, int8 (R - 128, G - 128, B - 128, is padding), which bf16 holds
exactly.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.network.rotation import Padding, compute_source_index

ZERO_POINT = 128
"""Subtracted from the colours 0..255."""
PIXEL_CHANNELS = 4
_KEPT_MAPS_BYTES = 128_000_000  # 64 angles at 448 px are 69 MB


@dataclass(frozen=True)
class Blocks:
    """How a square convolution k x k of stride b reads a square image block by block.

    Attributes:
        side: of the image in pixels, without padding.
        block: b, side of a block in pixels.
        taps: side of the convolution over blocks, ceil(k / b).
        grid: blocks in a row.
        padding: zero padding of the image in pixels, at each edge.
    """

    side: int
    block: int
    taps: int
    grid: int
    padding: int

    @property
    def pixels(self) -> int:
        """Pixels of the whole grid."""
        return (self.grid * self.block) ** 2

    @property
    def channels(self) -> int:
        """Values of one block."""
        return self.block**2 * PIXEL_CHANNELS


def compute_blocks(convolution: nn.Conv2d, side: int) -> Blocks:
    """Computes the blocks in which a first convolution reads an image of ``side``; square, no groups or dilation."""
    kernel, block, padding = convolution.kernel_size[0], convolution.stride[0], int(convolution.padding[0])
    taps = math.ceil(kernel / block)
    outputs = (side + 2 * padding - kernel) // block + 1
    return Blocks(side, block, taps, outputs + taps - 1, padding)


class ViewLayout:
    """Lays out rotated views of square photos, at several scales, for one first convolution."""

    def __init__(
        self, convolution: nn.Conv2d, *, image_size: int, scales: int, padding: Padding, mean: Sequence[int]
    ) -> None:
        """Computes where pixels go; the map of a rotation is made when it is first asked for.

        Args:
            convolution: see `compute_blocks`.
            image_size: side S of a photo in pixels.
            scales: scale k shows every 2**k-th pixel.
            padding: what a rotation shows outside the photo.
            mean: the three colours in 0..255 that zero padding shows.
        """
        self.blocks = [compute_blocks(convolution, image_size // 2**scale) for scale in range(scales)]
        self._size, self._padding = image_size, padding
        self._places = [
            compute_places(blocks, every=2**scale, image_size=image_size) for scale, blocks in enumerate(self.blocks)
        ]
        self._black_and_padding = torch.tensor([[0, 0, 0, 0], [*mean, 1]], dtype=torch.uint8)
        self._maps: OrderedDict[tuple[float, torch.device], Sequence[Tensor]] = OrderedDict()

    @property
    def map_bytes(self) -> int:
        """Memory of one view at full scale as the convolution reads it."""
        return self.blocks[0].pixels * PIXEL_CHANNELS * torch.bfloat16.itemsize

    def pixels(self, images: Tensor) -> Tensor:
        """Packs photos, uint8 (B, 3, S, S), into int32 (B, S * S + 2): their pixels, then black, then padding."""
        photo = self._size**2
        channels_last = images.new_empty(len(images), photo + 2, PIXEL_CHANNELS)
        for colour in range(3):  # one by one, each is a run of bytes; all at once, torch takes three times as long
            channels_last[:, :photo, colour] = images[:, colour].flatten(1)
        channels_last[:, :photo, 3] = 0
        channels_last[:, photo:] = self._black_and_padding.to(images.device)
        shift = torch.tensor([ZERO_POINT, ZERO_POINT, ZERO_POINT, 0], dtype=torch.uint8, device=images.device)
        # Flipping a byte's highest bit subtracts 128 from it, once it is read as int8.
        return channels_last.view(torch.int32).squeeze(-1).bitwise_xor_(shift.view(torch.int32))

    def views(self, shown: Sequence[tuple[Tensor, Sequence[Tensor]]], *, scale: int, into: Tensor) -> None:
        """Lays out views at one scale.

        Args:
            shown: packed photos (S * S + 2,), each with the ``rotation`` that is shown of it.
            scale: number of the scale.
            into: int32 (N, pixels of the scale) with N >= the number of views; what lies beyond them stays as it is.
        """
        for view, (photo, rotation) in zip(into, shown, strict=False):
            torch.index_select(photo, 0, rotation[scale], out=view)

    def input(self, views: Tensor, scale: int) -> Tensor:
        """Returns the convolution's input, bf16 (N, channels, grid, grid) channels-last, of views of one scale."""
        blocks = self.blocks[scale]
        values = views.view(torch.int8).to(torch.bfloat16)
        return values.view(-1, blocks.grid, blocks.grid, blocks.channels).permute(0, 3, 1, 2)

    def rotation(self, angle: float, device: torch.device) -> Sequence[Tensor]:
        """Returns a rotation by ``angle`` degrees: by scale, int32, the packed pixel that each pixel shows."""
        key = (angle, device)
        if key not in self._maps:
            padding = self._size**2 + 1
            shown = torch.cat([compute_source_index(self._size, angle, self._padding), torch.tensor([padding])])
            found = [shown[places].to(device, torch.int32) for places in self._places]
            size_bytes = sum(part.nbytes for part in found)
            while self._maps and (len(self._maps) + 1) * size_bytes > _KEPT_MAPS_BYTES:
                self._maps.popitem(last=False)
            self._maps[key] = found
        self._maps.move_to_end(key)
        return self._maps[key]


def compute_places(blocks: Blocks, *, every: int, image_size: int) -> Tensor:
    """Computes for each pixel, block by block, its place in the photo read at every so-many-th pixel: int64 (pixels,).

    What lies in the padding has the place ``image_size ** 2``.
    """
    line = torch.arange(blocks.grid * blocks.block).view(blocks.grid, blocks.block) - blocks.padding
    y, x = line[:, None, :, None], line[None, :, None, :]
    inside = (y >= 0) & (y < blocks.side) & (x >= 0) & (x < blocks.side)
    return torch.where(inside, (y * image_size + x) * every, image_size**2).flatten()
