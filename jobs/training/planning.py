"""Which detectors a request asks for, and of which photos: its units, category by category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from pydantic import ValidationError

from jobs.archive.absence import describe_level, explain_absence, look_into, suggest_folder
from jobs.archive.exclusion import exclude_photos, make_selection, read_names
from jobs.archive.mvtec import list_as_category, list_labelled, locate_flawless, select_split
from jobs.config import is_place
from jobs.detectors.backbone_weights import WeightsFiles, hash_backbone_weights
from jobs.errors import EmptyArchiveError, RequestError
from jobs.review.copies import ConfirmedDefects, read_confirmed_defects
from jobs.tables.manifest import number_photos
from jobs.training.config import TrainConfig
from jobs.training.units import TrainingUnit
from model.statistics.calibration import describe_shortage
from model.training.photos import split_calibration

MIN_PHOTOS = 2
"""Flawless photos that a training needs: one trains, one calibrates."""


def plan_units(config: TrainConfig, files: WeightsFiles | None = None) -> list[TrainingUnit]:
    """Returns all units of a request, category by category; warns about what their photos cannot support.

    Args:
        config: the request.
        files: of weights; whoever loads the weights afterwards takes the same.

    Raises:
        RequestError: a category without enough flawless photos, no category at all, or no weights file.
    """
    wanted = config.categories or list_categories(str(config.data))
    weights_hashes, exclusions = hash_weights(config, files or WeightsFiles()), read_exclusions(config)
    return [unit for category in wanted for unit in _plan_category(config, category, weights_hashes, exclusions)]


@dataclass(frozen=True)
class Exclusions:
    """What a request leaves out beside patterns of keys, read once for all categories; None where it names nothing.

    Attributes:
        names: of photos, by the list ``exclude``.
        defects: confirmed ones, which do not train, nor do copies of them.
    """

    names: list[str] | None
    defects: ConfirmedDefects | None


def read_exclusions(config: TrainConfig) -> Exclusions:
    """Reads what a request leaves out. Raises RequestError where a list cannot be read, or there are no verdicts."""
    exclude, results = config.exclude, config.verdicts
    return Exclusions(
        names=read_names(exclude) if exclude is not None and is_place(exclude) else None,
        defects=None if results is None else read_confirmed_defects(results, rules=config.detector.pixel_rules),
    )


def _plan_category(
    config: TrainConfig, category: str, weights_hashes: Mapping[str, str], exclusions: Exclusions
) -> list[TrainingUnit]:
    manifest = list_flawless_photos(config, category, exclusions)
    first = config.detector.seed
    return [
        TrainingUnit(make_unit_config(config, category, variant=variant, seed=seed), manifest, weights_hashes[variant])
        for variant in config.asked_variants
        for seed in range(first, first + config.seeds)
    ]


def hash_weights(config: TrainConfig, files: WeightsFiles) -> dict[str, str]:
    """Returns what names the bytes of the backbone's weights, by variant.

    Raises:
        RequestError: a file is not there.
    """
    detectors = {name: config.make_detector_config(name, seed=config.detector.seed) for name in config.asked_variants}
    by_weights = {detector.weights: detector for detector in detectors.values()}
    hashes = {
        weights: hash_backbone_weights(detector, files, asked_as=f"--detector.weights {weights}")
        for weights, detector in by_weights.items()
    }
    return {name: hashes[detector.weights] for name, detector in detectors.items()}


def make_unit_config(config: TrainConfig, category: str, *, variant: str, seed: int) -> TrainConfig:
    """Returns the request for one unit alone: with it on the command line, the same detector comes out.

    Raises:
        RequestError: a folder has a name that no category can have.
    """
    alone = {
        "category": category,
        "variant": variant,
        "variants": [],
        "seeds": 1,
        "validation_fraction": config.validation_share,
        "detector": config.make_detector_config(variant, seed=seed).model_dump(),
        "optimizer": config.make_optimizer_config(variant).model_dump(),
    }
    try:
        return TrainConfig.model_validate(config.model_dump() | alone)
    except ValidationError as error:  # a folder's name, for all else was validated before
        raise RequestError(
            f"{config.data} has a folder that cannot be a category: {error.errors()[0]['msg']}"
        ) from error


def list_categories(data: str) -> list[str]:
    """Returns the categories that have photos in ``<category>/train/good/``, sorted.

    Raises:
        RequestError: there is none.
    """
    found = sorted(set(select_split(list_labelled(data), "train")["category"].to_pylist()))
    if not found:
        level = look_into(data)
        reason = f"it has {describe_level(level)}" if level else explain_absence(data)
        raise RequestError(
            f"{data} holds no category: expected photos in <category>/train/good/, but {reason}"
            f"{suggest_folder(data, None)}"
        )
    return found


def list_flawless_photos(config: TrainConfig, category: str, exclusions: Exclusions) -> pa.Table:
    """Returns MANIFEST rows of a category's flawless photos; warns where they are too few to calibrate.

    Raises:
        EmptyArchiveError: there are none.
        RequestError: fewer than `MIN_PHOTOS`.
    """
    folder = config.good or locate_flawless(str(config.data), category)
    try:
        selection = make_selection(config.include, config.exclude)
        manifest = list_as_category(folder, category, selection=selection, boxes=config.boxes)
    except EmptyArchiveError as error:
        suggested = "" if config.data is None else suggest_folder(config.data, category)
        raise EmptyArchiveError(f"no flawless photos of {category}: {error}{suggested}") from error
    if exclusions.names is not None:
        manifest = leave_out_photos(manifest, exclusions.names, config, category=category)
    if exclusions.defects is not None:
        manifest = leave_out_defects(manifest, exclusions.defects, place=str(config.verdicts), category=category)
    if len(manifest) < MIN_PHOTOS:
        raise RequestError(f"expected at least {MIN_PHOTOS} flawless photos in {folder}, got {len(manifest)}")
    held_out = len(split_calibration(len(manifest), fraction=config.calibration_fraction, seed=config.split_seed)[1])
    rate, confidence = config.false_alarm_rate, config.confidence
    if said := describe_shortage(held_out, false_alarm_rate=rate, confidence=confidence, category=category):
        print(f"warning: {said}. Add photos or raise --calibration-fraction")
    return manifest


def leave_out_photos(manifest: pa.Table, names: list[str], config: TrainConfig, *, category: str) -> pa.Table:
    """Returns the MANIFEST rows that ``names``, of ``config.exclude``, do not name, and prints how many they do.

    Raises:
        RequestError: they name none of the photos of the only category.
    """
    folder = str(config.data or config.good)
    kept = number_photos(exclude_photos(manifest, names, data=folder))
    count = len(manifest) - len(kept)
    if not count and config.categories == [category]:
        raise RequestError(
            f"--exclude {config.exclude} names none of the {len(manifest)} photos of {category}: expected URIs, or "
            f"keys below {folder}, such as {manifest['image_uri'][0]}"
        )
    print(f"left out {count} of {len(manifest)} photos of {category}, which {config.exclude} names")
    return kept


def leave_out_defects(manifest: pa.Table, defects: ConfirmedDefects, *, place: str, category: str) -> pa.Table:
    """Returns the MANIFEST rows that are no defect confirmed in ``place``, nor a copy; prints how many others are."""
    is_defective = defects.find(manifest)
    print(f"left out {sum(is_defective)} of {len(manifest)} photos of {category}, confirmed as defects in {place}")
    return number_photos(manifest.filter(pa.array([not one for one in is_defective], pa.bool_())))
