"""What a measurement scores: photos that are given or drawn, and a detector that is the champion."""

from __future__ import annotations

from pathlib import Path

from jobs import storage
from jobs.detectors import registry
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.synthetic.archive import draw_archive
from model.artifact import save_artifact
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration

CATEGORY = "insulator"


def list_or_draw_photos(photos: str | None, folder: Path) -> list[str]:
    """Returns the URIs of the photos below a place, or of 24 of 1152 px that are drawn below a folder.

    Raises:
        RequestError: there are none.
    """
    if photos is None:
        draw_archive(folder / "drawn", size_px=1152, train_good=0, test_good=12, missing_cap=6, rust=6)
    source = photos or uris.normalize(str(folder / "drawn" / "data"))
    found = [info.uri for info in storage.list_objects(source)]
    if not found:
        raise RequestError(f"{source} is empty: expected JPEG photos under this prefix")
    return found


def register_champion(detector: AttentDifferNet, *, detectors: str, artifact: Path) -> None:
    """Saves a detector with a calibration of two scores and makes it the champion of CATEGORY.

    Args:
        detector: trained or not.
        detectors: URI of the registry.
        artifact: local folder that its files are written to first.
    """
    save_artifact(artifact, detector, calibration=Calibration(scores=(0.0, 1.0)), metrics={})
    detector_id = registry.put(detectors, CATEGORY, folder=artifact)
    registry.set_alias(detectors, CATEGORY, alias="champion", detector_id=detector_id)
