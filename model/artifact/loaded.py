"""A loaded detector: it scores a photo in this process, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from model.artifact.files import JSON
from model.detector import AttentDifferNet
from model.image import decode_image
from model.inference.detector import Scorer, build_scorer
from model.statistics.calibration import Calibration


@dataclass(frozen=True)
class PhotoScore:
    """What a detector says of one photo.

    Attributes:
        score: comparable within one detector; higher is more anomalous.
        p_value: share of flawless photos that score at least as high, comparable between detectors; None for a detector
            without calibration.
    """

    score: float
    p_value: float | None


@dataclass(frozen=True)
class Artifact:
    """A loaded detector, in evaluation mode, and what is known about it."""

    detector_id: str
    detector: AttentDifferNet
    calibration: Calibration | None
    metrics: Mapping[str, JSON]

    @cached_property
    def scorer(self) -> Scorer:
        """Returns what scores pixels, made once: p-values hold for its arithmetic."""
        return build_scorer(self.detector)

    def score_file(self, path: Path | str) -> PhotoScore:
        """Scores one local photo, see `score_bytes`. Raises OSError where it cannot be read."""
        return self.score_bytes(Path(path).expanduser().read_bytes())

    def score_bytes(self, data: bytes) -> PhotoScore:
        """Scores the bytes of one photo, in this process.

        Raises:
            ImageError: the bytes are no photo that can be read whole.
        """
        config = self.detector.config
        image = decode_image(data, size=config.image_size, **config.pixel_rules._asdict())
        score = float(self.scorer.score(image[None])[0])
        p_values = None if self.calibration is None else self.calibration.compute_p_values(np.array([score]))
        return PhotoScore(score, None if p_values is None else float(p_values[0]))
