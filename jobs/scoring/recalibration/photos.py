"""The photos of a recalibration: those asked for, less what the detector was trained on, one of each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.mvtec import list_as_category, locate_flawless
from jobs.archive.selection import Selection
from jobs.decoding.fingerprints import group_fingerprints
from jobs.decoding.photos import fingerprint_photos
from jobs.detectors.config import RecalibrateConfig
from jobs.detectors.lineage import is_training_photo
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import RequestError
from jobs.review.confirmed import list_confirmed_photos
from model.network.seeding import Stream, create_stream
from model.statistics.groups import draw_one_of_each


def list_photos(config: RecalibrateConfig) -> pa.Table:
    """Lists the flawless photos asked for, MANIFEST rows. Raises RequestError where there are none."""
    if config.verdicts is not None:
        return list_confirmed_photos(config.verdicts, config.category)
    folder = config.good or locate_flawless(str(config.data), config.category, folder=config.folder)
    return list_as_category(folder, config.category, selection=Selection(config.include, config.exclude))


def name_flag(config: RecalibrateConfig) -> str:
    """Names the flag that gives other photos than those asked for: --folder is below --data alone."""
    return "--good" if config.data is None else "--folder"


def select_unseen_photos(
    manifest: pa.Table, config: RecalibrateConfig, *, parent: RegisteredDetector, metrics: Mapping[str, Any]
) -> pa.Table:
    """Selects the MANIFEST rows that the detector was not trained on: its scores of the others are too low.

    Raises:
        RequestError: it was trained on all of them, or nobody can tell and ``assume_unseen`` is not set.
    """
    recorded = metrics.get("training_photos")
    if not isinstance(recorded, list) and not config.assume_unseen:
        raise RequestError(
            f"detector {parent.detector_id} does not record its training photos, so nobody can tell them from new "
            f"ones: give photos that it has not seen ({name_flag(config)}) and say so with --assume-unseen"
        )
    seen = is_training_photo(manifest, recorded=recorded if isinstance(recorded, list) else [])
    if any(seen):
        print(f"left out {sum(seen)} of {len(manifest)} photos: the detector was trained on them")
    if all(seen):
        raise RequestError(
            f"detector {parent.detector_id} was trained on all {len(manifest)} photos: give others with "
            f"{name_flag(config)}"
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
            f"others with {name_flag(config)}"
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
    """Tells which of N photos, FINGERPRINT rows, have the pixels of a training photo, (N,).

    Prints a line where nobody can tell.
    """
    recorded = metrics.get("training_pixels")
    if not isinstance(recorded, list):
        print(
            f"detector {parent.detector_id} does not record the pixels of its training photos: copies of them are "
            "known by name and entity tag alone"
        )
        return np.zeros(len(photos), bool)
    known = frozenset(recorded)
    return np.array([found in known for found in photos["pixel_hash"].to_pylist()], bool)
