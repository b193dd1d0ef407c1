"""DifferNet's own procedures, written plainly, to measure ours against: the same weights, the same number of views.

As its authors' code does it (arXiv 2008.12577): every view is resized, rotated and normalised on its own from the
decoded photo; the network runs on contiguous fp32 tensors, one photo's views at a time; and the Jacobian is computed in
a second pass through the flow although the score does not use it. In training, gradients of the convolutions are
computed too although the optimizer does not have them, unless asked to leave that out.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from PIL import Image
from torchvision.transforms import functional as transforms

from model.detector import AttentDifferNet
from model.network.rotation import list_scoring_angles

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def score_as_differnet(detector: AttentDifferNet, data: bytes) -> float:
    """Scores one photo (a JPEG's bytes) as DifferNet's test loop does; plain variants without attention only."""
    photo = Image.open(io.BytesIO(data)).convert("RGB")
    side = detector.config.image_size
    views = torch.stack([make_view(photo, angle, side) for angle in list_scoring_angles(detector.config.views)])
    with torch.no_grad():
        features = detector.scale_features(pool_differnet_features(detector, views))
        latents, _ = detector.flow(features)
        detector.flow(features)  # their jacobian(run_forward=False) runs every subnet again
    return float((latents**2).mean())


def make_differnet_optimizer(detector: AttentDifferNet) -> torch.optim.Adam:
    """Returns Adam on the flow, with DifferNet's settings."""
    return torch.optim.Adam(detector.flow.parameters(), lr=2e-4, betas=(0.8, 0.8), eps=1e-4, weight_decay=1e-5)


def train_step_as_differnet(
    detector: AttentDifferNet, adam: torch.optim.Adam, batch: Sequence[bytes], *, conv_gradients: bool
) -> float:
    """Takes one step of DifferNet's training loop and returns its loss.

    Args:
        detector: a plain variant; its convolutions require gradients where ``conv_gradients`` is set.
        adam: from `make_differnet_optimizer`.
        batch: photos of one step, JPEG bytes; each is seen under ``train_views`` random rotations.
        conv_gradients: True is what the authors' code does; False spares the convolutions' backward pass.
    """
    photos = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch]
    side, count = detector.config.image_size, detector.config.train_views
    views = torch.stack([make_view(photo, random.uniform(0, 360), side) for photo in photos for _ in range(count)])  # noqa: S311
    adam.zero_grad()
    with torch.set_grad_enabled(conv_gradients):
        features = detector.scale_features(pool_differnet_features(detector, views))
    latents, log_det = detector.flow(features)
    loss = (0.5 * (latents**2).sum(1) - log_det).mean() / latents.shape[1]
    loss.backward()
    adam.step()
    return float(loss.detach())


def make_view(photo: Image.Image, angle: float, side: int) -> torch.Tensor:
    """Returns a photo resized, rotated by ``angle`` degrees and normalized, float32 (3, side, side)."""
    resized = transforms.resize(photo, [side, side])
    rotated = transforms.rotate(resized, angle)
    normalized: torch.Tensor = transforms.normalize(transforms.to_tensor(rotated), _MEAN, _STD)
    return normalized


def pool_differnet_features(detector: AttentDifferNet, views: torch.Tensor) -> torch.Tensor:
    """Returns the pooled features (N, D) of normalized views (N, 3, side, side), scale by scale."""
    pooled = []
    for scale in range(detector.config.scales):
        scaled = views if scale == 0 else F.interpolate(views, size=views.shape[-1] // 2**scale)
        pooled.append(torch.mean(detector.backbone.layers(scaled), dim=(2, 3)))
    return torch.cat(pooled, dim=1)
