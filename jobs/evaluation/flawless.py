"""The flawless photos of an evaluation: whether there are any, what may stand for them, what is promised of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs.archive.mvtec import FLAWLESS
from jobs.errors import RequestError
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.metrics import DetectorKey
from jobs.evaluation.stage import NamedDetector
from jobs.tables.schema import EVALUATED, Status
from model.statistics.calibration import Calibration
from model.statistics.false_alarms import Promise, make_promise

MAX_NAMED = 5
"""Categories that a message names."""
CalibratedDetector = tuple[NamedDetector, Calibration]


def list_without_flawless(manifest: pa.Table) -> list[str]:
    """Lists the categories of LABELLED rows that have no flawless photo, sorted."""
    pairs = list(zip(manifest["category"].to_pylist(), manifest["label"].to_pylist(), strict=True))
    return sorted({category for category, _ in pairs} - {category for category, label in pairs if label == FLAWLESS})


def check_flawless_photos(data: str, manifest: pa.Table) -> None:
    """Raises RequestError where a category of LABELLED rows has defects only: no AUROC can come of it."""
    lacking = list_without_flawless(manifest)
    if not lacking:
        return
    labels = sorted({str(name) for name in manifest["label"].to_pylist()})
    close = [name for name in labels if name.casefold() == FLAWLESS]
    hint = f"is {close[0]!r} meant for {FLAWLESS!r}? Else " if close else ""
    raise RequestError(
        f"{data} has no flawless test photos of {', '.join(lacking[:MAX_NAMED])}{' ...' * (len(lacking) > MAX_NAMED)}: "
        f"expected <category>/test/{FLAWLESS}/, got test/ with {', '.join(labels[:MAX_NAMED])}; {hint}add some, leave "
        "these out with --categories, or set the defects against the calibration photos with --flawless calibration"
    )


def list_calibrations(candidates: Mapping[str, Sequence[NamedDetector]]) -> dict[DetectorKey, CalibratedDetector]:
    """Lists the calibrated detectors of all categories with their calibrations."""
    return {
        (category, one.variant, one.seed): (one, one.registered.calibration)
        for category, mine in candidates.items()
        for one in mine
        if one.registered.calibration is not None
    }


def make_promises(
    config: EvaluateConfig, calibrations: Mapping[DetectorKey, CalibratedDetector], *, lacking: Collection[str]
) -> dict[DetectorKey, Promise]:
    """Makes the promise of every calibrated detector, but for categories ``lacking`` flawless test photos.

    Calibration photos say nothing about the promise that they gave.
    """
    return {
        key: make_promise(calibration, config.false_alarm_rate, confidence=config.confidence)
        for key, (_, calibration) in calibrations.items()
        if key[0] not in lacking
    }


def make_outcome_promises(
    outcomes: Iterable[Mapping[str, Any]], *, false_alarm_rate: float
) -> dict[DetectorKey, Promise]:
    """Makes what the calibration of every outcome promises; those without ``calibration`` scores promise nothing.

    Args:
        outcomes: ``category``, ``variant``, ``seed`` and ``calibration`` of trained detectors or baselines.
        false_alarm_rate: in (0, 1).
    """
    return {
        (one["category"], one["variant"], one["seed"]): make_promise(
            Calibration(scores=tuple(one["calibration"])), false_alarm_rate
        )
        for one in outcomes
        if one.get("calibration")
    }


def build_calibration_rows(
    calibrations: Mapping[DetectorKey, CalibratedDetector], *, lacking: Collection[str]
) -> pa.Table:
    """Builds EVALUATED rows of calibration photos, whose scores each detector keeps, as flawless ones.

    Their URIs name the detector, so that no comparison takes those of two detectors for the same photos.

    Args:
        calibrations: of the detectors.
        lacking: categories that have no flawless test photos; the others need none.
    """
    found = [
        {
            "category": category,
            "label": FLAWLESS,
            "variant": variant,
            "seed": seed,
            "detector_id": one.registered.detector_id,
            "image_uri": f"calibration:{one.registered.detector_id}:{number:06d}",
            "status": Status.SCORED,
            "score": score,
        }
        for (category, variant, seed), (one, calibration) in calibrations.items()
        if category in lacking
        for number, score in enumerate(calibration.scores)
    ]
    return pa.Table.from_pylist(found, schema=EVALUATED)
