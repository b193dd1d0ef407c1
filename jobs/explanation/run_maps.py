"""``--explain`` of a run: fetches its most anomalous photos again and writes an overlay and float maps of each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from jobs import storage
from jobs.detectors.node_cache import hold_detector
from jobs.errors import CredentialsError, StorageError
from jobs.explanation.choice import Choice
from jobs.explanation.drawing import draw_overlay, mark_photo, read_place
from jobs.explanation.outcome import MapsOutcome
from jobs.explanation.photos import BATCH_PHOTOS, ShownPhoto, fetch_photos
from jobs.explanation.selection import COLUMNS, MostAnomalous
from jobs.explanation.table import append_maps, locate_file, make_key, read_maps
from jobs.results.known import stream_rows
from jobs.tables.boxes import name_part
from model.artifact import Artifact, load_artifact
from model.artifact.files import ArtifactError
from model.localization.explaining import GRADCAM, POSITIONS, Map, explain_photos, scale_map
from model.process import prepare_process

OVERLAY_PX = 512
"""Longer side of an overlay."""
COMMIT_PHOTOS = 200
"""Photos of one commit to the table of maps: what a run that is killed explains again."""
_QUALITY = 85


@dataclass(frozen=True)
class MapsRequest:
    """Which photos of which run are explained.

    Attributes:
        results: base URI of the results.
        run_id: a run whose rows are in the table.
        detectors: the registry that it has scored with.
        choice: which photos.
        max_pixels: largest photo decoded.
    """

    results: str
    run_id: str
    detectors: str
    choice: Choice
    max_pixels: int


def explain_run(request: MapsRequest, *, confirm: Callable[[], None]) -> MapsOutcome:
    """Writes what is missing of the maps of a run, and says what came of it.

    Args:
        request: what is to be explained.
        confirm: raises if another process may do the same; asked before each commit.

    Raises:
        CredentialsError, StorageError: the results cannot be read or written. A photo or a detector that cannot be read
            is a problem of its photos alone.
    """
    prepare_process()
    selection = MostAnomalous(request.choice)
    selection.read(stream_rows(request.results, COLUMNS, run_id=request.run_id))
    known = read_maps(request.results, request.run_id)
    rows = [row for row in selection.rows if make_key(row) not in known]
    outcome = MapsOutcome(known=len(selection.rows) - len(rows), left_out=selection.left_out)
    waiting: list[dict[str, Any]] = []
    for written in write_all(rows, request, outcome=outcome):
        waiting += written
        if len(waiting) >= COMMIT_PHOTOS:
            commit(waiting, request, outcome=outcome, confirm=confirm)
            waiting = []
    if waiting:
        commit(waiting, request, outcome=outcome, confirm=confirm)
    return outcome


def commit(
    waiting: Sequence[Mapping[str, Any]], request: MapsRequest, *, outcome: MapsOutcome, confirm: Callable[[], None]
) -> None:
    """Adds photos whose files are written to the table."""
    confirm()
    append_maps(request.results, waiting)
    outcome.explained += len(waiting)


def write_all(
    rows: Sequence[dict[str, Any]], request: MapsRequest, *, outcome: MapsOutcome
) -> Iterator[list[dict[str, Any]]]:
    """Writes overlays and float maps, detector by detector; yields MAPS rows of a few photos at a time."""
    for (category, detector_id), mine in groupby(rows, key=lambda row: (row["category"], row["detector_id"])):
        of_detector = list(mine)
        try:
            with hold_detector(request.detectors, category, detector_id=detector_id) as folder:
                artifact = load_artifact(folder, from_cache=True)
        except CredentialsError:
            raise  # true of every detector
        except (ArtifactError, StorageError) as error:
            outcome.problems += [(name_part(row["image_uri"], row["box"]), f"detector: {error}") for row in of_detector]
            continue
        for first in range(0, len(of_detector), BATCH_PHOTOS):
            yield write_batch(artifact, of_detector[first : first + BATCH_PHOTOS], request, outcome=outcome)


def write_batch(
    artifact: Artifact, rows: Sequence[dict[str, Any]], request: MapsRequest, *, outcome: MapsOutcome
) -> list[dict[str, Any]]:
    """Fetches a few photos and writes their files; returns their MAPS rows, and notes what could not be fetched."""
    settings = artifact.detector.config
    found = fetch_photos(
        rows,
        size=settings.image_size,
        rules=settings.pixel_rules,
        shown_px=OVERLAY_PX,
        max_pixels=request.max_pixels,
    )
    outcome.problems += [
        (name_part(row["image_uri"], row["box"]), one)
        for row, one in zip(rows, found, strict=True)
        if not isinstance(one, ShownPhoto)
    ]
    read = [(row, one) for row, one in zip(rows, found, strict=True) if isinstance(one, ShownPhoto)]
    if not read:
        return []
    maps = explain_photos(artifact.detector, torch.from_numpy(np.stack([one.seen for _, one in read])))
    return [
        write_files(row, photo, of_photo, request, detector_id=artifact.detector_id)
        for (row, photo), of_photo in zip(read, maps, strict=True)
    ]


def write_files(
    row: Mapping[str, Any], photo: ShownPhoto, maps: Mapping[str, Map], request: MapsRequest, *, detector_id: str
) -> dict[str, Any]:
    """Writes the overlay and the float maps of one photo; returns its MAPS row."""
    shown = POSITIONS if POSITIONS in maps else GRADCAM
    drawn = mark_photo(draw_overlay(photo.shown, scale_map(maps[shown], shown)), read_place(row))
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=_QUALITY)
    overlay, floats = (
        locate_file(request.results, request.run_id, row, ending=name) for name in ("jpg", "safetensors")
    )
    storage.write(overlay, buffer.getvalue())
    storage.write(floats, save(dict(maps)))
    return {
        **{name: row[name] for name in ("image_uri", "image_etag", "box", "category")},
        "run_id": request.run_id,
        "detector_id": detector_id,
        "shown": shown,
        "overlay_uri": overlay,
        "maps_uri": floats,
        "explained_at": datetime.now(UTC),
    }
