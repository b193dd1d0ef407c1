"""The list of the least likely photos that a training ends with, so that a person can look for hidden defects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs import storage
from jobs.storage import uris
from jobs.tables.text import format_csv, make_printable
from jobs.training.photos import DecodedPhotos
from jobs.training.units import TrainingUnit

LIST = "least_likely.csv"
PRINTED_PHOTOS = 5


def save_unlikely_photos(unit: TrainingUnit, decoded: DecodedPhotos, answer: Mapping[str, Any]) -> list[str]:
    """Writes ``least_likely.csv`` beside the detector; returns lines for a person, none where nothing was looked for.

    Args:
        unit: what was trained.
        decoded: its photos.
        answer: of its first worker, see `jobs.training.worker.run_worker`.
    """
    found = answer.get("unlikely", [])
    if not found:
        return []
    names = decoded.readable["image_uri"].to_pylist()
    rows = [(names[one["index"]], one["times_median"], one["p_value"]) for one in found]
    config = unit.config
    place = uris.join(config.detectors, config.category, answer["detector_id"], LIST)
    storage.write(place, format_csv(("image_uri", "times_median", "p_value"), rows))
    return [
        f"least likely of the {len(names)} photos of {config.category}, each scored by what the others teach "
        "(p-value, times the median, photo); look whether one shows a defect:",
        *(f"  {p_value:.4f}  {times:6.1f}  {make_printable(name)}" for name, times, p_value in rows[:PRINTED_PHOTOS]),
        f"all {len(rows)}: {place}; leave out what is defective with --exclude LIST",
    ]
