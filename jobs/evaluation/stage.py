"""Ray Data stage ScoreWithEach: labelled photos, each scored by every detector of its category, in actors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from jobs.cluster.run_log import RunLog
from jobs.decoding.fetch import stack_images
from jobs.detectors.cache import DetectorCache
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import StorageError
from jobs.tables.schema import EVALUATED, NOT_FINITE, Status, format_reason
from model.artifact.files import ArtifactError
from model.config import Precision
from model.process import keep_freed_memory, prepare_process


@dataclass(frozen=True)
class NamedDetector:
    """A registered detector that is evaluated, under the name and seed that tables give it."""

    variant: str
    seed: int
    registered: RegisteredDetector


class ScoreWithEach:
    """DECODED rows to EVALUATED rows: a row per photo and detector, whatever happens to either.

    Args:
        detectors: URI of the registry.
        candidates: category -> detectors of one image size.
        cache_bytes: memory for detectors.
        precisions: detector id -> arithmetic that it is evaluated with.
        report: called with the number of rows by status of each batch.
        device: where detectors live, "cpu" or "cuda".
    """

    def __init__(
        self,
        *,
        detectors: str,
        candidates: Mapping[str, Sequence[NamedDetector]],
        cache_bytes: int,
        precisions: Mapping[str, Precision],
        report: Callable[[Mapping[str, int]], None],
        device: str,
    ) -> None:
        """Loads nothing yet."""
        prepare_process()
        keep_freed_memory()
        self._candidates, self._report, self._device, self._precisions = candidates, report, device, precisions
        self._loaded = DetectorCache(
            detectors,
            limit_bytes=cache_bytes,
            device=device,
            measure=lambda values: None,
            log=RunLog("evaluate"),
        )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Scores one batch."""
        found: list[dict[str, Any]] = []
        for category in sorted(set(rows["category"].to_pylist())):
            mine = rows.filter(pa.array([name == category for name in rows["category"].to_pylist()]))
            for candidate in self._candidates[category]:
                found += self._evaluate(mine, candidate)
        self._report(Counter(row["status"] for row in found))
        return pa.Table.from_pylist(found, schema=EVALUATED)

    def _evaluate(self, rows: pa.Table, candidate: NamedDetector) -> list[dict[str, Any]]:
        """Returns EVALUATED rows of one category under one detector; photos that were not decoded keep their reason."""
        photos = rows.select(["image_uri", "label", "status", "error"]).to_pylist()
        outcomes = [{"status": photo["status"], "error": photo["error"]} for photo in photos]
        decoded = np.flatnonzero([photo["status"] is None for photo in photos])
        scored = self._score(rows["pixels"], decoded.tolist(), candidate)
        for number, outcome in zip(decoded, scored, strict=True):
            outcomes[number] = outcome
        known = {
            "category": candidate.registered.category,
            "variant": candidate.variant,
            "seed": candidate.seed,
            "detector_id": candidate.registered.detector_id,
        }
        return [
            {**known, "label": photo["label"], "image_uri": photo["image_uri"], **outcome}
            for photo, outcome in zip(photos, outcomes, strict=True)
        ]

    def _score(self, pixels: pa.ChunkedArray, rows: Sequence[int], candidate: NamedDetector) -> list[dict[str, Any]]:
        asked = candidate.registered
        images = stack_images(pixels, size=asked.config.image_size, rows=rows, tiles=asked.config.tile_grid)
        try:
            detector = self._loaded.get(
                asked.category, detector_id=asked.detector_id, precision=self._precisions[asked.detector_id]
            ).scorer
        except (ArtifactError, StorageError) as error:
            return [{"status": Status.FAILED, "error": format_reason("detector", str(error))}] * len(images)
        return describe_outcomes(detector.score(torch.from_numpy(images).to(self._device)).cpu().numpy(), candidate)


def describe_outcomes(scores: npt.NDArray[np.float64], candidate: NamedDetector) -> list[dict[str, Any]]:
    """Returns status, error, score and p-value of each photo that the detector has looked at.

    Args:
        scores: (N,), not finite where the detector gave none.
        candidate: the detector.
    """
    calibration = candidate.registered.calibration
    finite = np.isfinite(scores)
    p_values = np.full(len(scores), np.nan)
    if calibration is not None:
        p_values[finite] = calibration.compute_p_values(scores[finite])
    failed = {"status": Status.FAILED, "error": NOT_FINITE}
    return [
        {"status": Status.SCORED, "error": None, "score": score, "p_value": None if np.isnan(p_value) else p_value}
        if np.isfinite(score)
        else failed
        for score, p_value in zip(scores.tolist(), p_values.tolist(), strict=True)
    ]
