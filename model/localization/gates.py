"""Attention's own map: where its spatial gates open."""

from __future__ import annotations

import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.localization.gaussians import resize_maps
from model.network.gates import Gate


@torch.no_grad()
def map_spatial_gates(detector: AttentDifferNet, images: Tensor) -> Tensor | None:
    """Maps how far the spatial gates of attention open on unrotated photos.

    Args:
        detector: in evaluation mode.
        images: uint8 (N, 3, S, S) RGB, N >= 1.

    Returns:
        float32 (N, h, w): the mean over attended stages, at the grid of the finest; None where no block has a spatial
        gate, as SE and ECA.
    """
    found: list[Tensor] = []

    def keep(_module: object, _args: object, gate: Tensor) -> None:
        if gate.shape[1] == 1:
            found.append(gate[:, 0].float())

    gates = [module for module in detector.backbone.attention.modules() if isinstance(module, Gate)]
    hooks = [gate.register_forward_hook(keep) for gate in gates]
    try:
        detector.pool_with_maps(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        return None
    finest = max((one.shape[1:] for one in found), key=lambda grid: grid[0] * grid[1])
    return torch.stack([resize_maps(one, (finest[0], finest[1])) for one in found]).mean(0)
