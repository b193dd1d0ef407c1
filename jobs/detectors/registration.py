"""Puts a trained detector to use: scores its calibration photos, and registers it with them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.detectors import registry
from model.artifact import save_artifact
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.statistics.calibration import Calibration
from model.training.photos import Photos

VECTORS_PER_BATCH = 1024
"""Views at a time: as many as the flow is fast with."""


def score_photos(detector: AttentDifferNet, photos: Photos, *, rank: int = 0, world_size: int = 1) -> list[float]:
    """Scores every ``world_size``-th photo from ``rank`` on, in the arithmetic that will score the archive.

    A p-value compares a photo's score with these, so they must come from the same arithmetic.
    """
    mine = torch.arange(len(photos))[rank::world_size]
    views = detector.config.views * detector.config.tile_grid.total
    batches = torch.split(mine, max(1, VECTORS_PER_BATCH // views)) if len(mine) else ()
    scorer = build_scorer(detector)
    return [float(score) for batch in batches for score in scorer.score(photos.take(batch))]


def register_detector(
    detector: AttentDifferNet,
    scores: Sequence[float],
    *,
    detectors: str,
    category: str,
    metrics: Mapping[str, Any],
) -> str:
    """Calibrates a detector, saves it and puts it into the registry; the detector is on the CPU afterwards.

    Args:
        detector: a trained one.
        scores: of the calibration photos, see `score_photos`.
        detectors: URI of the registry.
        category: the detector's.
        metrics: what its metrics.json says of training and lineage.

    Returns:
        The detector's id.

    Raises:
        StorageError: the registry cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        save_artifact(folder, detector.cpu(), calibration=Calibration(scores=tuple(scores)), metrics=metrics)
        return registry.put(detectors, category, folder=folder)
