"""What a run will do, decided once before any cluster work and kept with its staging, so that a rerun does the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from jobs.cluster.arithmetic import choose_precisions
from jobs.config import AskedPrecision, ScoringResources
from jobs.detectors import registry
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import RequestError
from model.config import DEFAULT_RULES, PixelRules, Precision
from model.statistics.calibration import Calibration, choose_false_alarm_rate
from model.statistics.tail_rank import Tail, fit_tail


class PlannedDetector(BaseModel):
    """The detector that scores one category in this run.

    Attributes:
        detector_id: hash of weights, config and calibration.
        weights_id: hash of what its raw scores depend on; None where it cannot be read.
        variant: its name in tables.
        image_size: side of its input in pixels, of a tile where photos are cut into tiles.
        rules: how photos become pixels.
        views: per photo, or per tile.
        precision: the arithmetic that it scores with.
        false_alarm_rate: asked for, or chosen, see `plan_detector`.
        confidence: with which the threshold holds the rate; None: it holds on average over calibration sets.
        threshold: score above which a photo is an anomaly; None where the calibration cannot hold the rate.
        calibration: gives p-values.
        tail: gives tail ranks.
        promoted_at: when the alias was last pointed at it; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector_id: str
    weights_id: str | None
    variant: str
    image_size: int
    rules: PixelRules = DEFAULT_RULES
    views: int
    precision: Precision
    false_alarm_rate: float
    confidence: float | None
    threshold: float | None
    calibration: Calibration
    tail: Tail
    promoted_at: datetime | None = None

    @property
    def vectors(self) -> int:
        """Returns the latent vectors of a photo: its views, of all tiles."""
        return self.views * self.rules.tiles.total


class ScoringPlan(BaseModel):
    """Everything that the stages need: sent to every worker, so it holds no weights.

    Attributes:
        run_id: the run.
        detectors: URI of the registry.
        by_category: the detector of each category that has one.
        max_pixels: largest photo decoded.
        root: URI that the keys of photos are below; None is the bucket of each, as for a list or an inventory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    detectors: str
    by_category: dict[str, PlannedDetector]
    max_pixels: int
    root: str | None = None


def plan_detectors(
    detectors: str,
    categories: Iterable[str],
    *,
    alias: str,
    false_alarm_rate: float | None,
    confidence: float | None = None,
    precision: AskedPrecision = "auto",
) -> dict[str, PlannedDetector]:
    """Resolves ``alias`` of every category that has one; the rest is left out and its photos become no_detector rows.

    Args:
        detectors: URI of the registry.
        categories: of the archive.
        alias: which detector of each.
        false_alarm_rate: None takes for each category the smallest that its calibration supports.
        confidence: see `Calibration.find_threshold`.
        precision: arithmetic that the run asks for.

    Raises:
        RequestError: a detector has no calibration, or one of another precision than the one asked for by name, or no
            category has a detector at all.
    """
    wanted = sorted(set(categories))
    found = {category: registry.resolve(detectors, category, alias=alias) for category in wanted}
    planned = {
        category: plan_registered_detector(
            replace(detector, weights_id=registry.find_weights_id(detectors, detector)),
            false_alarm_rate,
            confidence=confidence,
        )
        for category, detector in found.items()
        if detector is not None
    }
    if not wanted:
        raise RequestError(
            "no key of the archive has a category, which is its first folder unless --key-pattern says otherwise: give "
            f"--category NAME where all photos are of one; {detectors} has "
            f"{', '.join(registry.list_categories(detectors)[:5]) or 'none'}"
        )
    if not planned:
        raise RequestError(
            f"no category of the archive ({', '.join(wanted[:5])}) has a detector with alias {alias!r} in "
            f"{detectors}, which has {', '.join(registry.list_categories(detectors)[:5]) or 'none'}: train one or "
            "correct --detectors, --archive, --key-pattern or --category"
        )
    check_precision(planned, asked=precision)
    return planned


def check_precision(planned: Mapping[str, PlannedDetector], *, asked: AskedPrecision) -> None:
    """Raises RequestError where a detector was calibrated with another precision than the one asked for."""
    others = [category for category, detector in planned.items() if asked not in ("auto", detector.precision)]
    if others:
        other = planned[others[0]]
        raise RequestError(
            f"--scoring.precision {asked}, but detector {other.detector_id} of {others[0]} was calibrated with "
            f"{other.precision} ({len(others)} such): its p-values hold for that alone; take auto, or calibrate it "
            f"anew with jobs.recalibrate --precision {asked}"
        )


def plan_registered_detector(
    detector: RegisteredDetector, false_alarm_rate: float | None, *, confidence: float | None = None
) -> PlannedDetector:
    """Plans a detector with its own calibration. Raises RequestError where it has none."""
    if detector.calibration is None:
        raise RequestError(
            f"detector {detector.detector_id} of {detector.category} has no calibration, so it cannot give p-values: "
            f"calibrate {detector.category} with jobs.recalibrate"
        )
    return plan_detector(
        detector, calibration=detector.calibration, false_alarm_rate=false_alarm_rate, confidence=confidence
    )


def plan_detector(
    detector: RegisteredDetector,
    *,
    calibration: Calibration,
    false_alarm_rate: float | None,
    confidence: float | None = None,
) -> PlannedDetector:
    """Plans what the stages need of a detector, with a calibration that may be another than its own.

    Args:
        detector: as registered.
        calibration: gives its p-values.
        false_alarm_rate: None takes what the calibration supports best, see `choose_false_alarm_rate`.
        confidence: see `Calibration.find_threshold`.
    """
    config, photos = detector.config, len(calibration.scores)
    rate = choose_false_alarm_rate(photos, confidence=confidence) if false_alarm_rate is None else false_alarm_rate
    return PlannedDetector(
        detector_id=detector.detector_id,
        weights_id=detector.weights_id,
        variant=config.variant,
        image_size=config.image_size,
        rules=config.pixel_rules,
        views=config.views,
        precision=config.precision,
        false_alarm_rate=rate,
        confidence=confidence,
        threshold=calibration.find_threshold(rate, confidence=confidence),
        calibration=calibration,
        tail=fit_tail(calibration),
        promoted_at=detector.promoted_at,
    )


def use_precisions(
    plan: ScoringPlan, *, asked: AskedPrecision, resources: ScoringResources, local: bool = False
) -> ScoringPlan:
    """Gives every detector of a plan the arithmetic of the whole run, see `jobs.cluster.arithmetic`."""
    names = list(plan.by_category)
    calibrated = [plan.by_category[name].precision for name in names]
    chosen = choose_precisions(calibrated, asked=asked, resources=resources, local=local)
    detectors = {
        name: plan.by_category[name].model_copy(update={"precision": precision})
        for name, precision in zip(names, chosen, strict=True)
    }
    return plan.model_copy(update={"by_category": detectors})
