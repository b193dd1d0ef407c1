"""What scoring costs, as it was measured, with the machine it was measured on."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import Precision


@dataclass(frozen=True)
class DetectorCosts:
    """What a photo costs with one preset.

    Attributes:
        decode_ms_per_megapixel: CPU of fetching from local disk, decoding and resizing; a JPEG is read at a fraction of
            its size where that is enough, so a smaller input makes it cheaper.
        view_ms: CPU of rotation, network and flow for a view, by precision.
    """

    decode_ms_per_megapixel: float
    view_ms: dict[Precision, float]


MACHINE = "Intel Xeon with AMX, 2 cores, beside other work, which about doubles CPU times"
"""Where the figures below come from: ``python -m jobs.capacity --measure`` with UAV photos of 1 megapixel, the least of
two passes."""

DETECTORS: dict[str, DetectorCosts] = {
    "differnet_fast": DetectorCosts(11.6, {"bf16": 3.28, "fp32": 14.4}),
    "differnet": DetectorCosts(11.7, {"bf16": 14.5, "fp32": 80.0}),
    "attentdiffernet_se": DetectorCosts(11.7, {"bf16": 17.4, "fp32": 81.8}),
    "attentdiffernet_cbam": DetectorCosts(11.7, {"bf16": 22.8, "fp32": 104.3}),
    "attentdiffernet_best": DetectorCosts(11.7, {"bf16": 26.0, "fp32": 103.7}),
    "gaussian_resnet18": DetectorCosts(11.6, {"bf16": 9.06, "fp32": 51.9}),
}
"""Preset -> what a photo costs."""
