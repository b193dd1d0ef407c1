"""Detectors that a scoring process keeps loaded: the last used ones, up to a number of bytes."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass

import torch

from jobs.cluster.run_log import RunLog
from jobs.decoding.fetch import Measure
from jobs.detectors.node_cache import hold_detector
from model.artifact import load_artifact
from model.config import Precision
from model.detector import AttentDifferNet
from model.inference.detector import Scorer, build_scorer


@dataclass(frozen=True)
class LoadedDetector:
    """A detector ready to score.

    Attributes:
        scorer: its weights.
        precision: arithmetic that it scores with on this machine.
        size_bytes: memory of what it does not share with others.
        backbone: names what it may share.
    """

    scorer: Scorer
    precision: Precision
    size_bytes: int
    backbone: str


class DetectorCache:
    """Loads detectors when they are asked for, and drops those that were not for longest.

    Detectors whose backbone, attention included, has the same weights share it.
    """

    def __init__(
        self,
        detectors: str,
        *,
        limit_bytes: int,
        device: str,
        measure: Measure,
        log: RunLog,
    ) -> None:
        """Loads nothing yet.

        Args:
            detectors: URI of the registry.
            limit_bytes: memory of the detectors kept; the one in use stays, however large it is.
            device: where they live, "cpu" or "cuda".
            measure: told of loads, evictions and the seconds that loading took.
            log: of the run; told of the same, detector by detector.
        """
        self._detectors, self._limit_bytes = detectors, limit_bytes
        self._device, self._measure, self._log = device, measure, log
        self._loaded: OrderedDict[str, LoadedDetector] = OrderedDict()

    def get(self, category: str, *, detector_id: str, precision: Precision) -> LoadedDetector:
        """Returns a detector of a category, loaded if need be.

        Args:
            category: whose detector.
            detector_id: which.
            precision: arithmetic to score with.

        Raises:
            ArtifactError: its content is not what its id says.
            StorageError: it cannot be fetched.
        """
        found = self._loaded.get(detector_id)
        if found is None:
            began = time.monotonic()
            found = self._load(category, detector_id, precision)
            seconds = time.monotonic() - began
            self._measure({"detector_loads": 1, "detector_load_s": seconds})
            about = {"category": category, "detector_id": detector_id, "precision": found.precision}
            self._log.event("detector_loaded", {**about, "seconds": round(seconds, 3), "bytes": found.size_bytes})
            self._loaded[detector_id] = found
        self._loaded.move_to_end(detector_id)
        self._shrink()
        return found

    def _shrink(self) -> None:
        while len(self._loaded) > 1 and self.size_bytes > self._limit_bytes:
            detector_id, _ = self._loaded.popitem(last=False)
            self._measure({"detector_evictions": 1})
            self._log.event("detector_evicted", {"detector_id": detector_id})

    @property
    def size_bytes(self) -> int:
        """Memory of all that is kept."""
        return sum(detector.size_bytes for detector in self._loaded.values())

    def _load(self, category: str, detector_id: str, precision: Precision) -> LoadedDetector:
        with hold_detector(self._detectors, category, detector_id=detector_id) as folder:
            detector = load_artifact(folder, device=self._device, precision=precision, from_cache=True).detector
        # Compiled for the place, it has other outputs.
        stages = 0 if detector.positions is None else detector.positions.stages
        backbone = f"{precision} {stages} {hash_backbone(detector)}"
        shared = next((one.scorer for one in self._loaded.values() if one.backbone == backbone), None)
        scorer = build_scorer(detector, sharing=shared)
        return LoadedDetector(scorer, precision, scorer.size_bytes, backbone)


def hash_backbone(detector: AttentDifferNet) -> str:
    """Names everything that decides pooled features: the geometry and the weights before the flow."""
    config = detector.config
    geometry = config.model_dump(include=_GEOMETRY, mode="json")
    digest = hashlib.sha256(repr(sorted(geometry.items())).encode())
    for name, tensor in detector.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data if tensor.ndim else b"")
    return digest.hexdigest()


_GEOMETRY = {
    "backbone",
    "image_size",
    "scales",
    "feature_stage",
    "pooling",
    "rotation_padding",
    "attention",
}
