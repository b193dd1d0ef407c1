"""Recalibration as a job: new flawless photos, a new calibration of the same weights, and what it is called."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from jobs.detectors import registry
from jobs.detectors.config import RecalibrateConfig
from jobs.detectors.lineage import build_lineage, hash_manifest
from jobs.detectors.node_cache import hold_detector
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import EXIT_DONE, RequestError
from jobs.scoring.recalibration.calibration import build_calibration
from jobs.scoring.recalibration.photos import list_photos, select_one_of_each_group, select_unseen_photos
from jobs.scoring.recalibration.scores import score_readable_photos
from model.artifact import recalibrate_artifact
from model.statistics.calibration import Calibration, describe_guarantee


def recalibrate_detector(config: RecalibrateConfig) -> int:
    """Calibrates the detector behind an alias again and registers the result; moves aliases only if asked to.

    Raises:
        RequestError: no such detector, no photos, or none that it was not trained on.
        JobError: no photo could be scored.
        ConflictError: the alias to promote was moved in the meantime; the new detector stays registered.
    """
    parent = registry.resolve(config.detectors, config.category, alias=config.alias)
    if parent is None:
        raise RequestError(f"{config.category} has no alias {config.alias!r} in {config.detectors}: train a detector")
    metrics = registry.read_metrics(config.detectors, config.category, detector_id=parent.detector_id)
    photos = list_photos(config)
    named = select_unseen_photos(photos, config, parent=parent, metrics=metrics)
    manifest = select_one_of_each_group(named, config, parent=parent, metrics=metrics)
    rows = score_readable_photos(manifest, config, parent=parent)
    calibration = build_calibration(rows, config, parent=parent)
    used = manifest.filter(pc.is_in(manifest["image_id"], rows["image_id"].combine_chunks()))
    origin = build_lineage(config.model_dump(mode="json"), manifest_hash=hash_manifest(used), parent=parent.detector_id)
    promise = {"promise": {"false_alarm_rate": config.false_alarm_rate, "confidence": config.confidence}}
    detector_id = register_calibration(
        config,
        parent,
        calibration=calibration,
        metrics=inherit_metrics(metrics, origin, len(calibration.scores)) | promise,
    )
    if detector_id == parent.detector_id:
        print(f"{detector_id} has this very calibration already: nothing was registered")
        return EXIT_DONE
    print(f"detector {detector_id} of {config.category}: the weights of {parent.detector_id}, calibrated anew")
    said = describe_guarantee(
        len(calibration.scores), false_alarm_rate=config.false_alarm_rate, confidence=config.confidence
    )
    print(f"promise: {said}")
    move_aliases(config, parent, detector_id=detector_id, reason=f"recalibrated on {len(rows)} photos")
    return EXIT_DONE


def inherit_metrics(metrics: Mapping[str, Any], origin: Mapping[str, Any], photos: int) -> dict[str, Any]:
    """Returns the metrics of the training, which the weights still have, with a lineage of this recalibration."""
    counts, groups = metrics.get("photos"), metrics.get("groups")
    return {
        **metrics,
        "photos": {**(counts if isinstance(counts, Mapping) else {}), "calibration": photos},
        "groups": {**(groups if isinstance(groups, Mapping) else {}), "calibration": photos},
        "lineage": origin,
        "training_lineage": metrics.get("training_lineage", metrics.get("lineage")),
    }


def register_calibration(
    config: RecalibrateConfig, parent: RegisteredDetector, *, calibration: Calibration, metrics: Mapping[str, Any]
) -> str:
    """Registers the parent's weights with the new calibration and returns their detector id."""
    with (
        hold_detector(config.detectors, config.category, detector_id=parent.detector_id) as source,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(scratch) / "artifact"
        detector_id = recalibrate_artifact(
            folder, source, calibration=calibration, metrics=metrics, precision=config.precision
        )
        if detector_id != parent.detector_id:  # else the parent would lose its own lineage
            registry.put(config.detectors, config.category, folder=folder)
    return detector_id


def move_aliases(config: RecalibrateConfig, parent: RegisteredDetector, *, detector_id: str, reason: str) -> None:
    """Points the aliases that were asked for at the new detector. Raises ConflictError where another moved one."""
    moves: dict[str, str | None] = {config.alias_to: None} if config.alias_to else {}
    if config.promote:
        moves[config.alias] = parent.detector_id
    for alias, current in moves.items():
        before = registry.set_alias(
            config.detectors, config.category, alias=alias, detector_id=detector_id, reason=reason, expected=current
        )
        print(f"{alias} of {config.category}: {before or 'none'} -> {detector_id}")
    if config.alias not in moves:
        print(
            f"{config.alias} of {config.category} is still {parent.detector_id}, and scoring takes that one: the same "
            "again with --promote, or `python -m jobs.registry promote`, puts the new one in its place"
        )
