"""The explain command: fetches photos, scores and maps them in this process, and draws them on one picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from jobs import storage
from jobs.errors import EXIT_DONE, JobError
from jobs.explanation.config import ExplainConfig
from jobs.explanation.detector import find_detector
from jobs.explanation.photos import BATCH_PHOTOS, ShownPhoto, fetch_photos
from jobs.explanation.sheet import ExplainedPhoto, draw_sheet
from jobs.tables.text import make_printable
from model.artifact import Artifact
from model.localization.explaining import POSITIONS, explain_photos
from model.localization.places import find_places
from model.process import prepare_process


def explain_images(config: ExplainConfig) -> int:
    """Writes the picture, says where it is and returns the exit code.

    Raises:
        RequestError: no such detector.
        JobError: none of the photos could be read.
        StorageError: the picture cannot be written.
    """
    prepare_process()
    artifact = find_detector(config.detector, category=config.category, alias=config.alias)
    rows: list[ExplainedPhoto] = []
    for first in range(0, len(config.images), BATCH_PHOTOS):
        rows += explain_batch(artifact, config.images[first : first + BATCH_PHOTOS], config)
    unread = [row for row in rows if row.photo is None]
    if len(unread) == len(rows):
        raise JobError(f"none of {len(rows)} photos could be read, the first: {unread[0].key}: {unread[0].said}")
    for row in unread:
        print(f"warning: {make_printable(row.key)}: {make_printable(row.said)}", file=sys.stderr)
    storage.write(config.output, draw_sheet(rows, panel_px=config.panel_px))
    print(
        f"{len(rows) - len(unread)} of {len(rows)} photos explained by detector {artifact.detector_id}: "
        f"{make_printable(config.output.removeprefix('file://'))}"
    )
    return EXIT_DONE


def explain_batch(artifact: Artifact, images: Sequence[str], config: ExplainConfig) -> list[ExplainedPhoto]:
    """Fetches, scores and maps a few photos; those that cannot be read keep the reason."""
    settings = artifact.detector.config
    found = fetch_photos(
        [{"image_uri": uri, "image_etag": None} for uri in images],
        size=settings.image_size,
        rules=settings.pixel_rules,
        shown_px=config.panel_px,
        max_pixels=config.max_pixels,
    )
    seen = [one.seen for one in found if isinstance(one, ShownPhoto)]
    explained = iter(explain_pixels(artifact, np.stack(seen)) if seen else ())
    rows = []
    for uri, one in zip(images, found, strict=True):
        key = uri.removeprefix("file://")
        if isinstance(one, ShownPhoto):
            rows.append(replace(next(explained), key=key, photo=one.shown))
        else:
            rows.append(ExplainedPhoto(key, "missing: there is no such photo" if one.startswith("deleted:") else one))
    return rows


def explain_pixels(artifact: Artifact, seen: npt.NDArray[np.uint8]) -> list[ExplainedPhoto]:
    """Scores and maps photos, uint8 (N, 3, S, S), N >= 1; the rows have no key and no picture yet."""
    images = torch.from_numpy(seen)
    scores = artifact.scorer.score(images).cpu().numpy()
    p_values = [None] * len(seen) if artifact.calibration is None else artifact.calibration.compute_p_values(scores)
    maps = explain_photos(artifact.detector, images)
    places = [find_places(one[POSITIONS][None])[0] if POSITIONS in one else None for one in maps]
    return [
        ExplainedPhoto("", describe_score(float(score), p_value), maps=one, place=place)
        for score, p_value, one, place in zip(scores, p_values, maps, places, strict=True)
    ]


def describe_score(score: float, p_value: float | None) -> str:
    """Says what a photo scores; a detector without calibration gives no p-value."""
    return f"{'no p-value: not calibrated' if p_value is None else f'p-value {p_value:.4g}'}, score {score:.5g}"
