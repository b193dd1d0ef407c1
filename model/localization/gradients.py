"""Maps of where a score comes from, by its gradient: for any detector, at the cost of a pass back through it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy import ndimage
from torch import Tensor

from model.detector import AttentDifferNet
from model.localization.gaussians import resize_maps

_BLUR_SHARE = 3 / 448


def map_gradients(detector: AttentDifferNet, images: Tensor, *, attended: bool = True) -> dict[str, Tensor]:
    """Attributes the scores of photos' unrotated views to positions, in three ways, each (N, h, w) of its own grid.

    - ``gradcam``: Grad-CAM (arXiv 1610.02391) of the score, at the last pooled stage: each channel weighs as its mean
      gradient, and what lowers the score counts as 0;
    - ``share``: gradient times feature, summed over channels and stages: to first order, what each position adds to the
      score. With average pooling and a Gaussian it is exact but for a constant;
    - ``gradient``: DifferNet's (arXiv 2008.12577): the size of the gradient at each pixel, blurred before, as in its
      authors' code; theirs is a mean over rotated views besides.

    Args:
        detector: in evaluation mode.
        images: uint8 (N, 3, S, S) RGB.
        attended: False leaves attention out.
    """
    device = detector.image_mean.device
    with torch.enable_grad():
        pixels = (images.to(device, torch.float32) / 255 - detector.image_mean) / detector.image_std
        pixels.requires_grad_()
        features, mapped = detector.backbone.pool_with_maps(pixels, attended=attended)
        maps = mapped[-len(detector.backbone.pooled_stages) :]
        scores = detector.flow.latents(detector.scale_features(features)).square().mean(1)
        by_pixel, *by_map = torch.autograd.grad(scores.sum(), [pixels, *maps])
    plain = [one.detach() for one in maps]
    return {
        "gradcam": (by_map[-1].mean((2, 3), keepdim=True) * plain[-1]).sum(1).relu(),
        "share": sum_stages([(grad * one).sum(1) for grad, one in zip(by_map, plain, strict=True)]),
        "gradient": blur_pixels(by_pixel).abs().sum(1),
    }


def blur_pixels(values: Tensor) -> Tensor:
    """Blurs (N, C, S, S) with a Gaussian of 3 pixels where S is 448, as in DifferNet's code."""
    sigma = _BLUR_SHARE * values.shape[-1]
    return torch.from_numpy(ndimage.gaussian_filter(values.cpu().numpy(), (0, 0, sigma, sigma))).to(values.device)


def sum_stages(maps: Sequence[Tensor]) -> Tensor:
    """Sums maps (N, h, w) of several stages at the finest grid, each position's share spread over its finer ones."""
    height, width = max((one.shape[1:] for one in maps), key=lambda grid: grid[0] * grid[1])
    finer = [resize_maps(one, (height, width)) * (one[0].numel() / (height * width)) for one in maps]
    return torch.stack(finer).sum(0)
