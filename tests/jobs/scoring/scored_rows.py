"""A plan of one category, and rows that it may have scored."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.scoring.staged_rows import assemble_staged
from jobs.tables.schema import MANIFEST, Status
from model.statistics.calibration import Calibration
from model.statistics.tail_rank import fit_tail

CALIBRATION = Calibration(scores=tuple(float(score) for score in range(1, 20)))
DETECTOR = PlannedDetector(
    detector_id="0123456789abcdef",
    weights_id="fedcba9876543210",
    variant="tiny",
    image_size=64,
    views=4,
    precision="fp32",
    false_alarm_rate=0.05,
    confidence=None,
    threshold=CALIBRATION.find_threshold(0.05),
    calibration=CALIBRATION,
    tail=fit_tail(CALIBRATION),
)
PLAN = ScoringPlan(
    run_id="night-1",
    detectors="file:///d",
    by_category={"cap": DETECTOR},
    max_pixels=1,
)


def make_manifest(count: int) -> pa.Table:
    """Makes MANIFEST rows of photos of the category cap; image_bytes is the image_id."""
    rows = [
        {"image_id": n, "image_uri": f"s3://a/cap/{n}", "image_etag": "e", "image_bytes": n, "category": "cap"}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def make_scored(manifest: pa.Table, scores: list[float], *, plan: ScoringPlan = PLAN) -> pa.Table:
    """Makes STAGED rows of MANIFEST rows."""
    count = len(manifest)
    return assemble_staged(
        manifest,
        plan=plan,
        statuses=[Status.SCORED] * count,
        errors=[None] * count,
        scores=np.array(scores, float),
    )
