"""What the registry's commands say of detectors: rows for JSON, and the same as tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobs.detectors import registry
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import RequestError
from model.statistics.calibration import Calibration

_READERS = 16
_RATES = (0.05, 0.01)
_LONGEST_LIST = 8


def describe_detector(detectors: str, category: str, *, detector_id: str) -> dict[str, Any]:
    """All that is known of one detector, as JSON: config, calibration's promises, metrics, aliases.

    Raises:
        RequestError: it is not there or damaged.
    """
    found = registry.read_detector(detectors, category, detector_id=detector_id)
    return {
        "category": category,
        "detector_id": detector_id,
        "aliases": _aliases_of(registry.read_aliases(detectors, category), detector_id),
        "config": found.config.model_dump(mode="json"),
        "calibration": _promises(found.calibration),
        "metrics": _count_training_photos(registry.read_metrics(detectors, category, detector_id=detector_id)),
    }


def summarize_detectors(detectors: str, category: str, *, detector_ids: Sequence[str]) -> list[dict[str, Any]]:
    """One row per detector of a category, newest last; a damaged detector's row has the reason under ``damage``."""
    aliases = registry.read_aliases(detectors, category)

    def row(detector_id: str) -> dict[str, Any]:
        base = {"category": category, "detector_id": detector_id, "aliases": _aliases_of(aliases, detector_id)}
        try:
            found = registry.read_detector(detectors, category, detector_id=detector_id)
            figures = registry.read_metrics(detectors, category, detector_id=detector_id)
        except RequestError as error:
            return base | {"damage": str(error)}
        return base | _figures(found, figures)

    with ThreadPoolExecutor(_READERS) as readers:
        return sorted(readers.map(row, detector_ids), key=lambda found: str(found.get("created_at") or ""))


def _figures(detector: RegisteredDetector, figures: Mapping[str, Any]) -> dict[str, Any]:
    lineage = figures.get("lineage")
    lineage = lineage if isinstance(lineage, Mapping) else {}
    losses = figures.get("loss_by_epoch")
    losses = losses if isinstance(losses, list) else []
    return {
        "variant": detector.config.variant,
        "seed": detector.config.seed,
        "epochs": len(losses),
        "loss": figures.get("loss", losses[-1] if losses else None),
        "validation_loss": figures.get("validation_loss"),
        "calibration_photos": len(detector.calibration.scores) if detector.calibration else 0,
        "smallest_rate": detector.calibration.min_rate if detector.calibration else None,
        "parent": lineage.get("parent"),
        "git_commit": lineage.get("git_commit"),
        "created_at": lineage.get("created_at"),
    }


def _aliases_of(aliases: Mapping[str, str], detector_id: str) -> list[str]:
    return sorted(alias for alias, named in aliases.items() if named == detector_id)


def _promises(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "photos": len(calibration.scores),
        "smallest_rate": calibration.min_rate,
        "thresholds": {f"{rate:g}": calibration.find_threshold(rate) for rate in _RATES},
    }


def _count_training_photos(metrics: Mapping[str, Any]) -> dict[str, Any]:
    photos = metrics.get("training_photos")
    return {**metrics, "training_photos": len(photos)} if isinstance(photos, list) else dict(metrics)


def find_differences(detectors: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted name of a field -> its value in each detector, for the fields that are not the same in all.

    Args:
        detectors: at least two, see ``describe_detector``. A long list counts as its last value (a loss by epoch:
            the last loss).
    """
    flat = [_flat(detector) for detector in detectors]
    names = sorted({name for one in flat for name in one} - {"category"})
    rows = {name: [one.get(name) for one in flat] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def _flat(value: object, *, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        below = (_flat(part, name=f"{name}.{key}".strip(".")) for key, part in value.items())
        return {key: found for part in below for key, found in part.items()}
    if isinstance(value, list):
        return {f"{name}[-1]": value[-1]} if len(value) > _LONGEST_LIST else {name: json.dumps(value)}
    return {name: value}
