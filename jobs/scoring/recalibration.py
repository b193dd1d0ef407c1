"""Recalibration as a job: new flawless photos through the pipeline of scoring, a new calibration, the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
from scipy.stats import ks_2samp

from jobs.archive.mvtec import list_as_category, locate_flawless
from jobs.archive.selection import Selection
from jobs.cluster.datasets import collect_table
from jobs.cluster.progress import Progress
from jobs.cluster.session import explain_error, start_ray
from jobs.decoding.fingerprints import group_fingerprints
from jobs.decoding.photos import fingerprint_photos
from jobs.detectors import registry
from jobs.detectors.config import RecalibrateConfig
from jobs.detectors.lineage import build_lineage, hash_manifest, is_training_photo
from jobs.detectors.node_cache import hold_detector
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import EXIT_DONE, JobError, RequestError
from jobs.review.confirmed import list_confirmed_photos
from jobs.scoring.pipeline import score_photos
from jobs.scoring.plan import ScoringPlan, plan_detector
from jobs.tables.schema import STAGED, Status
from jobs.tables.text import make_printable
from model.artifact import recalibrate_artifact
from model.network.seeding import Stream, create_stream
from model.statistics.calibration import Calibration, describe_guarantee, describe_shortage
from model.statistics.groups import draw_one_of_each

MAX_SURPRISE = 0.01
"""Photos join a calibration whose scores differ so much with a probability of at least this, if they are alike."""


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


def list_photos(config: RecalibrateConfig) -> pa.Table:
    """Lists the flawless photos asked for, MANIFEST rows. Raises RequestError where there are none."""
    if config.verdicts is not None:
        return list_confirmed_photos(config.verdicts, config.category)
    folder = config.good or locate_flawless(str(config.data), config.category, folder=config.folder)
    return list_as_category(folder, config.category, selection=Selection(config.include, config.exclude))


def select_unseen_photos(
    manifest: pa.Table, config: RecalibrateConfig, *, parent: RegisteredDetector, metrics: Mapping[str, Any]
) -> pa.Table:
    """Selects the MANIFEST rows that the detector was not trained on: its scores of the others are too low."""
    recorded = metrics.get("training_photos")
    if not isinstance(recorded, list) and not config.assume_unseen:
        raise RequestError(
            f"detector {parent.detector_id} does not record its training photos, so nobody can tell them from new "
            "ones: give photos that it has not seen (--folder) and say so with --assume-unseen"
        )
    seen = is_training_photo(manifest, recorded=recorded if isinstance(recorded, list) else [])
    if any(seen):
        print(f"left out {sum(seen)} of {len(manifest)} photos: the detector was trained on them")
    if all(seen):
        raise RequestError(
            f"detector {parent.detector_id} was trained on all {len(manifest)} photos: give others with --folder"
        )
    return manifest.filter(pc.invert(pa.array(seen)))


def select_one_of_each_group(
    manifest: pa.Table, config: RecalibrateConfig, *, parent: RegisteredDetector, metrics: Mapping[str, Any]
) -> pa.Table:
    """Selects one photo, drawn at random, of each group of photos that the detector was not trained on.

    Photos of equal pixels and near-duplicates are a group, see `model.statistics.groups`; where a training photo is in
    it, nothing of the group calibrates. Photos that cannot be decoded stay: scoring says why.

    Raises:
        RequestError: all photos are copies of training photos.
    """
    size, max_pixels = parent.config.image_size, config.scoring.max_pixels
    photos = fingerprint_photos(manifest, size=size, max_pixels=max_pixels, rules=parent.config.pixel_rules)
    is_readable = pc.is_null(photos["error"]).to_numpy(zero_copy_only=False)
    readable = np.flatnonzero(is_readable)
    photos = photos.filter(pa.array(is_readable))
    groups = group_fingerprints(photos)
    is_seen = find_training_pixels(photos, parent=parent, metrics=metrics)
    unseen = np.flatnonzero(~np.isin(groups, groups[is_seen]))
    if is_seen.any():
        print(
            f"left out {len(readable) - len(unseen)} of {len(manifest)} photos: they have the pixels of training "
            "photos, or are near-duplicates of such copies"
        )
    if len(readable) and not len(unseen):
        raise RequestError(
            f"all {len(readable)} photos are copies of photos that detector {parent.detector_id} was trained on: give "
            "others with --folder"
        )
    drawn = draw_one_of_each(groups[unseen], rng=create_stream(0, Stream.CALIBRATION, 1))
    if len(drawn) < len(unseen):
        print(
            f"{len(unseen)} photos in {len(drawn)} groups (equal pixels and near-duplicates together): one of each "
            "calibrates"
        )
    kept = np.concatenate([readable[unseen[drawn]], np.flatnonzero(~is_readable)])
    return manifest.take(pa.array(np.sort(kept)))


def find_training_pixels(
    photos: pa.Table, *, parent: RegisteredDetector, metrics: Mapping[str, Any]
) -> npt.NDArray[np.bool_]:
    """Tells which photos, FINGERPRINT rows, have the pixels of a training photo; says so where nobody can tell."""
    recorded = metrics.get("training_pixels")
    if not isinstance(recorded, list):
        print(
            f"detector {parent.detector_id} does not record the pixels of its training photos: copies of them are "
            "known by name and entity tag alone"
        )
        return np.zeros(len(photos), bool)
    known = frozenset(recorded)
    return np.array([found in known for found in photos["pixel_hash"].to_pylist()], bool)


def score_readable_photos(manifest: pa.Table, config: RecalibrateConfig, *, parent: RegisteredDetector) -> pa.Table:
    """Returns STAGED rows of the photos that could be scored, and prints the others. Raises JobError for none."""
    rows = score_manifest(manifest, config, plan=plan_recalibration(config, parent))
    is_scored = pc.equal(rows["status"], Status.SCORED)
    for row in rows.filter(pc.invert(is_scored)).select(["image_uri", "error"]).to_pylist():
        print(f"warning: left out {make_printable(row['image_uri'])}: {make_printable(row['error'])}")
    if not pc.any(is_scored).as_py():
        raise JobError(f"needed at least 1 readable flawless photo, got 0 of {len(manifest)}: see the reasons above")
    return rows.filter(is_scored)


def score_manifest(manifest: pa.Table, config: RecalibrateConfig, *, plan: ScoringPlan) -> pa.Table:
    """Returns STAGED rows of all photos. Raises JobError where Ray stopped."""
    start_ray()
    try:
        with Progress(len(manifest), activity="scoring") as progress:
            photos = ray.data.from_arrow(manifest)
            found = score_photos(
                photos, rows=len(manifest), plan=plan, resources=config.scoring, report=progress.report
            )
            return collect_table(found, schema=STAGED)
    except ray.exceptions.RayError as error:
        raise JobError(f"recalibration stopped: {explain_error(error)}") from error


def plan_recalibration(config: RecalibrateConfig, parent: RegisteredDetector) -> ScoringPlan:
    """Plans to score one category with the parent, in the precision asked for or its own."""
    # A detector without calibration gets one here as well: any will do, for its p-values are not read.
    calibration = parent.calibration or Calibration(scores=(0.0,))
    planned = plan_detector(
        parent, calibration=calibration, false_alarm_rate=config.false_alarm_rate, confidence=config.confidence
    )
    if config.precision is not None:
        planned = planned.model_copy(update={"precision": config.precision})
    return ScoringPlan(
        run_id="recalibrate",
        detectors=config.detectors,
        by_category={config.category: planned},
        max_pixels=config.scoring.max_pixels,
    )


def build_calibration(rows: pa.Table, config: RecalibrateConfig, *, parent: RegisteredDetector) -> Calibration:
    """Builds the new calibration; prints what the old one made of these photos, and whether they are too few."""
    calibration = Calibration(scores=choose_scores(rows["score"].to_numpy(), config, before=parent.calibration))
    rate, confidence = config.false_alarm_rate, config.confidence
    if said := describe_shortage(len(calibration.scores), false_alarm_rate=rate, confidence=confidence):
        print(f"warning: {said}. Add photos or raise --false-alarm-rate")
    if parent.calibration is not None:
        flagged = pc.sum(rows["is_anomaly"]).as_py() or 0
        print(
            f"the calibration before reports {flagged} of these {len(rows)} flawless photos "
            f"({flagged / len(rows):.1%}) at a false-alarm rate of {rate:g}"
        )
        both = (parent.calibration, calibration)
        before, now = (format_threshold(one.find_threshold(rate, confidence=confidence)) for one in both)
        surely = "" if confidence is None else f" with confidence {confidence:g}"
        print(f"threshold at {rate:g}{surely}: {before} before, {now} now")
    return calibration


def choose_scores(
    scores: npt.NDArray[np.float64], config: RecalibrateConfig, *, before: Calibration | None
) -> tuple[float, ...]:
    """Chooses what calibrates: the new photos alone, or with those of before where their verdicts join them.

    Old and new photos calibrate together only where their scores look alike: else they are exchangeable with no
    night's, neither with the old ones nor with the new. Photos of equal score as one of before are in there already.

    Args:
        scores: (m,) of the new photos.
        config: the request.
        before: calibration of the detector.

    Raises:
        RequestError: the new photos score differently.
    """
    if config.verdicts is None or config.replace or before is None:
        return tuple(scores.tolist())
    known = np.array(before.scores)
    near = known[np.clip(np.searchsorted(known, scores), 0, len(known) - 1)]
    is_known = np.isclose(scores, near, rtol=1e-9, atol=0)
    fresh = scores[~is_known]
    if is_known.any():
        print(f"{is_known.sum()} of {len(scores)} photos calibrate this detector already")
    found = ks_2samp(fresh, known) if len(fresh) else None
    if found is not None and found.pvalue < MAX_SURPRISE:
        raise RequestError(
            f"the {len(fresh)} photos found good score differently from the {len(known)} calibration photos (distance "
            f"{found.statistic:.2f}, probability {found.pvalue:.2g}): together they promise nothing; give --replace to "
            "calibrate on them alone"
        )
    print(f"{len(fresh)} photos join {len(known)}: the promise is for photos that are like both")
    return (*before.scores, *fresh.tolist())


def format_threshold(threshold: float | None) -> str:
    """Formats a threshold with 6 digits; ``none`` where there is none."""
    return "none" if threshold is None else f"{threshold:.6g}"


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
