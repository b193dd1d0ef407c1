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


def describe_detector(detectors: str, detector: RegisteredDetector, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that is known of one detector, as JSON: config, thresholds, metrics, aliases.

    Args:
        detectors: the registry, which has its aliases.
        detector: as read.
        metrics: as read with it.
    """
    return {
        "category": detector.category,
        "detector_id": detector.detector_id,
        "weights_id": detector.weights_id,
        "aliases": list_aliases(registry.read_aliases(detectors, detector.category), detector.detector_id),
        "config": detector.config.model_dump(mode="json"),
        "calibration": describe_calibration(detector.calibration),
        "metrics": count_training_photos(metrics),
    }


def summarize_detectors(detectors: str, category: str, *, detector_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a row per detector of a category, newest last; a damaged detector's says why under ``damage``."""
    aliases = registry.read_aliases(detectors, category)

    def row(detector_id: str) -> dict[str, Any]:
        base = {"category": category, "detector_id": detector_id, "aliases": list_aliases(aliases, detector_id)}
        try:
            found, figures = registry.read_detector_and_metrics(detectors, category, detector_id=detector_id)
        except RequestError as error:
            return base | {"damage": str(error)}
        return base | summarize_metrics(found, figures)

    with ThreadPoolExecutor(_READERS) as readers:
        return sorted(readers.map(row, detector_ids), key=lambda found: str(found.get("created_at") or ""))


def summarize_metrics(detector: RegisteredDetector, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a detector's row: how it was trained, calibrated and where it comes from."""
    lineage = figures.get("lineage")
    lineage = lineage if isinstance(lineage, Mapping) else {}
    losses = figures.get("loss_by_epoch")
    losses = losses if isinstance(losses, list) else []
    return {
        "weights_id": detector.weights_id,
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


def list_aliases(aliases: Mapping[str, str], detector_id: str) -> list[str]:
    """Returns the aliases that point at a detector, sorted."""
    return sorted(alias for alias, named in aliases.items() if named == detector_id)


def describe_calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    """Returns a calibration's photos, smallest rate and thresholds by false-alarm rate; None without calibration."""
    if calibration is None:
        return None
    return {
        "photos": len(calibration.scores),
        "smallest_rate": calibration.min_rate,
        "thresholds": {f"{rate:g}": calibration.find_threshold(rate) for rate in _RATES},
    }


def count_training_photos(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metrics with the number of training photos in place of their hashes."""
    known = {name: metrics[name] for name in ("training_photos", "training_pixels") if name in metrics}
    return {**metrics, **{name: len(hashes) for name, hashes in known.items() if isinstance(hashes, list)}}


def find_differences(detectors: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns a field's value in each detector by its dotted name, for fields that are not the same in all.

    Args:
        detectors: at least two, see ``describe_detector``. A long list counts as its last value (a loss by epoch:
            the last loss).
    """
    flat = [flatten_json(detector) for detector in detectors]
    names = sorted({name for one in flat for name in one} - {"category"})
    rows = {name: [one.get(name) for one in flat] for name in names}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def flatten_json(value: object, *, name: str = "") -> dict[str, Any]:
    """Returns the leaves of nested JSON objects by their dotted names; of a long list the last value."""
    if isinstance(value, Mapping) and value:
        below = (flatten_json(part, name=f"{name}.{key}".strip(".")) for key, part in value.items())
        return {key: found for part in below for key, found in part.items()}
    if isinstance(value, list):
        return {f"{name}[-1]": value[-1]} if len(value) > _LONGEST_LIST else {name: json.dumps(value)}
    return {name: value}
