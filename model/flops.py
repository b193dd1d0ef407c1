"""What scoring a photo costs, as a number that does not depend on the machine or on what else runs on it."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.detector import AttentDifferNet


def count_scoring_gflop(detector: AttentDifferNet) -> float:
    """Counts floating-point operations of scoring one photo, in 1e9: convolutions and products, all tiles and views.

    Counted on one view, a multiplication and an addition as two (torch.utils.flop_counter); what is left out, such as
    gates' products and pooling, is below a hundredth.

    Args:
        detector: on any device; not changed.
    """
    side = detector.config.image_size
    view = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.flow.latents(detector.features(view))
    flop: int = counter.get_total_flops()
    return detector.config.tile_grid.total * detector.config.views * flop / 1e9
