"""All maps that explain one photo's score: what scoring maps anyway, and Grad-CAM with attention on and off."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.detector import AttentDifferNet
from model.localization.gradients import map_gradients
from model.tiling import cut_tiles, lay_maps, select_highest

POSITIONS, GRADCAM, GRADCAM_WITHOUT = "positions", "gradcam", "gradcam_without_attention"
"""Names of the maps. The first is what gives a photo its place, the other two are the paper's Figure 3."""
FAINT_PEAK = 3.0
"""Deviations up to so many standard deviations are found in flawless photos too: their maps stay faint."""

Map = npt.NDArray[np.float32]


def explain_photos(detector: AttentDifferNet, images: Tensor) -> list[dict[str, Map]]:
    """Maps photos in every way that their detector has.

    ``positions`` is missing from detectors without them, ``gradcam_without_attention`` from those without attention: it
    asks the same flow, with all attention left out of the network before it. Of a photo that is cut into tiles, the
    highest tile is mapped, at its place.

    Args:
        detector: in evaluation mode.
        images: uint8 (N, 3, H, W) RGB, N >= 1; a few at a time, for the way back through the network takes memory.

    Returns:
        For each photo its maps (h, w) by name, each of its own grid; higher is more anomalous.
    """
    found: dict[str, Tensor] = {}
    grid = detector.config.tile_grid
    tiles = cut_tiles(images.to(detector.image_mean.device), grid, side=detector.config.image_size)
    scores = torch.zeros(len(tiles)) if grid.total == 1 else detector.score_tiles(tiles).cpu()
    images, highest = select_highest(tiles.cpu(), scores, count=grid.total)
    if detector.positions is not None:
        with torch.no_grad():
            found[POSITIONS] = detector.positions.map_last(detector.pool_with_maps(images)[1])
    found[GRADCAM] = map_gradients(detector, images)["gradcam"]
    if detector.config.attention:
        found[GRADCAM_WITHOUT] = map_gradients(detector, images, attended=False)["gradcam"]
    arrays = {name: lay_maps(maps.float().cpu(), highest, grid).numpy() for name, maps in found.items()}
    return [{name: maps[number] for name, maps in arrays.items()} for number in range(len(images))]


def scale_map(values: Map, name: str) -> Map:
    """Scales a map (h, w) to 0..1, as it is shown; values that are not finite, and those below 0, become 0.

    Grad-CAM has no unit, so its peak is 1. A map of positions has one: its peak is 1 from `FAINT_PEAK` on, so that a
    flawless photo does not glow.
    """
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    peak = max(float(finite.max()), FAINT_PEAK if name == POSITIONS else 0.0)
    return np.asarray(finite / peak if peak > 0 else finite, np.float32)
