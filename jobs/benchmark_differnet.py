"""DifferNet's own scoring procedure, written plainly, to measure ours against: the same weights, the same views.

As its authors' code does it (arXiv 2008.12577): every view is resized, rotated and normalised on its own from the
decoded photo; the network runs on contiguous fp32 tensors, one photo's views at a time; and the Jacobian is computed in
a second pass through the flow although the score does not use it.
"""

from __future__ import annotations

import io

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from PIL import Image
from torchvision.transforms import functional as transforms

from model.detector import AttentDifferNet
from model.rotation import scoring_angles

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def score_as_differnet(detector: AttentDifferNet, data: bytes) -> float:
    """Scores one photo (a JPEG's bytes) as DifferNet's test loop does; plain variants without attention only."""
    photo = Image.open(io.BytesIO(data)).convert("RGB")
    side = detector.config.image_size
    views = torch.stack([_view(photo, angle, side) for angle in scoring_angles(detector.config.views)])
    with torch.no_grad():
        features = detector.scale_features(_features(detector, views))
        latents, _ = detector.flow(features)
        detector.flow(features)  # their jacobian(run_forward=False) runs every subnet again
    return float((latents**2).mean())


def _view(photo: Image.Image, angle: float, side: int) -> torch.Tensor:
    resized = transforms.resize(photo, [side, side])
    rotated = transforms.rotate(resized, angle)
    normalised: torch.Tensor = transforms.normalize(transforms.to_tensor(rotated), _MEAN, _STD)
    return normalised


def _features(detector: AttentDifferNet, views: torch.Tensor) -> torch.Tensor:
    pooled = []
    for scale in range(detector.config.scales):
        scaled = views if scale == 0 else F.interpolate(views, size=views.shape[-1] // 2**scale)
        pooled.append(torch.mean(detector.backbone.layers(scaled), dim=(2, 3)))
    return torch.cat(pooled, dim=1)
