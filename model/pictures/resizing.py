"""A photo of any proportions as the square that a detector sees."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from model.config import Resize


def resize_to_square(pixels: Tensor, size: int, *, resize: Resize = "stretch") -> Tensor:
    """Resizes uint8 (H, W, 3) to uint8 (3, size, size), bilinear with antialiasing.

    Args:
        pixels: the photo.
        size: side of the square.
        resize: stretch scales both sides to it, letterbox the longer one, with black beside the photo, crop the
            shorter one, and takes the middle.
    """
    if resize == "crop":
        pixels = cut_middle(pixels)
    planes = pixels.contiguous().permute(2, 0, 1).unsqueeze(0)
    height, width = pixels.shape[:2]
    longer = max(height, width) if resize == "letterbox" else 0
    rows, columns = (max(1, round(size * side / longer)) if longer else size for side in (height, width))
    scaled = interpolate(planes, size=(rows, columns), mode="bilinear", antialias=True)[0]
    if (rows, columns) == (size, size):
        return scaled.contiguous()
    square = torch.zeros(3, size, size, dtype=torch.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    square[:, top : top + rows, left : left + columns] = scaled
    return square


def cut_middle(pixels: Tensor) -> Tensor:
    """Cuts the largest square out of the middle of (H, W, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
