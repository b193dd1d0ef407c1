"""A photo of any proportions as the pixels that a detector sees: a square, or the tiles of a photo together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from model.pictures.rules import Resize


def resize_photo(pixels: Tensor, shape: tuple[int, int], *, resize: Resize = "stretch") -> Tensor:
    """Resizes uint8 (H, W, 3) to uint8 (3, *shape), bilinear with antialiasing.

    Args:
        pixels: the photo.
        shape: height and width of the result.
        resize: stretch scales both sides to it, letterbox keeps proportions, with black beside the photo, and so does
            crop, which takes the middle.
    """
    if resize == "crop":
        pixels = cut_middle(pixels, shape)
    planes = pixels.contiguous().permute(2, 0, 1).unsqueeze(0)
    height, width = pixels.shape[:2]
    rows, columns = shape
    if resize == "letterbox" and height * columns >= width * rows:
        columns = max(1, round(rows * width / height))
    elif resize == "letterbox":
        rows = max(1, round(columns * height / width))
    scaled = interpolate(planes, size=(rows, columns), mode="bilinear", antialias=True)[0]
    if (rows, columns) == shape:
        return scaled.contiguous()
    framed = torch.zeros(3, *shape, dtype=torch.uint8)
    top, left = (shape[0] - rows) // 2, (shape[1] - columns) // 2
    framed[:, top : top + rows, left : left + columns] = scaled
    return framed


def cut_middle(pixels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Cuts the largest part with the proportions of ``shape`` out of the middle of (H, W, 3)."""
    height, width = pixels.shape[:2]
    rows = min(height, max(1, width * shape[0] // shape[1]))
    columns = min(width, max(1, height * shape[1] // shape[0]))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]
