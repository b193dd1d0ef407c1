"""The scores of a recalibration's photos, through the pipeline of scoring."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.cluster.datasets import collect_table
from jobs.cluster.progress import Progress
from jobs.cluster.session import explain_error, start_ray
from jobs.detectors.config import RecalibrateConfig
from jobs.detectors.registry import RegisteredDetector
from jobs.errors import JobError
from jobs.scoring.pipeline import score_photos
from jobs.scoring.plan import ScoringPlan, plan_detector
from jobs.tables.schema import STAGED, Status
from jobs.tables.text import make_printable
from model.statistics.calibration import Calibration


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
