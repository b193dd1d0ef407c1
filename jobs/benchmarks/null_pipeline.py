"""The scoring pipeline without photos and network: the same stages, actors and rows, and nothing to compute in them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import ray

from jobs.cluster.datasets import count_scoring_actors, decode_manifest, map_in_scoring_actors
from jobs.cluster.tally import Report
from jobs.config import ScoringResources
from jobs.decoding.fetch import DECODED
from jobs.scoring.pipeline import choose_batch_photos
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.staged_rows import assemble_staged
from jobs.tables.schema import MANIFEST, Status


def score_with_null(
    manifest: ray.data.Dataset, *, rows: int, plan: ScoringPlan, resources: ScoringResources, report: Report
) -> ray.data.Dataset:
    """Returns what `jobs.scoring.pipeline.score_photos` gives, with scores made up from the row numbers.

    Args:
        manifest: MANIFEST rows.
        rows: their number.
        plan: detectors by category.
        resources: share of the cluster.
        report: tells the progress what each batch came to.
    """
    decoding = decode_manifest(manifest, skip_fetching, tasks=count_scoring_actors(resources))
    arguments = {"plan": plan, "report": report}
    photos = choose_batch_photos(rows, plan=plan, resources=resources)
    return map_in_scoring_actors(decoding, NullScoreImages, arguments, batch_photos=photos, resources=resources)


def skip_fetching(rows: pa.Table) -> pa.Table:
    """Returns DECODED rows without pixels."""
    absent = [pa.nulls(len(rows), field.type) for field in DECODED if field.name not in MANIFEST.names]
    return pa.Table.from_arrays([*rows.cast(MANIFEST).columns, *absent], schema=DECODED)


class NullScoreImages:
    """Takes the place of ScoreImages: makes scores up.

    Args:
        plan: the run's detectors by category.
        report: called with the number of rows by status of each batch.
        device: not used.
    """

    def __init__(self, *, plan: ScoringPlan, report: Report, device: str) -> None:
        """Keeps what each batch needs; there is nothing to load."""
        self._plan, self._report = plan, report

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Turns DECODED rows into STAGED rows."""
        count = len(rows)
        staged = assemble_staged(
            rows,
            plan=self._plan,
            statuses=[Status.SCORED] * count,
            errors=[None] * count,
            scores=(rows["image_id"].to_numpy() * 7919 % 100_003 / 1000.0).astype(np.float64),
        )
        self._report(Counter(staged["status"].to_pylist()))
        return staged
