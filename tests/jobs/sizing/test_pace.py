"""The model of fleets held against real pipelines of one and two workers, whose stages wait instead of computing.

Waiting takes no core: so the pace is that of the model on a busy machine too, and two workers need no two idle cores.
"""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
import ray

from jobs.cluster.datasets import decode_manifest, map_in_scoring_actors
from jobs.config import ScoringResources
from jobs.sizing.config import CapacityConfig
from jobs.sizing.fleet import size_fleet
from jobs.tables.manifest import make_manifest

BATCH_PHOTOS, BATCHES, BATCH_S = 8, 16, 1.0
WARM_BATCHES = 4
"""Before the pace is measured: actors start one after another."""


class WaitingScorer:
    """Takes the place of ScoreImages: each batch takes its time."""

    def __init__(self, *, batch_s: float, device: str) -> None:
        self._batch_s = batch_s

    def __call__(self, rows: pa.Table) -> pa.Table:
        time.sleep(self._batch_s)  # the cost of a batch, which the model is told
        return rows.append_column("ended_at", pa.array([time.time()] * len(rows)))


def pass_on(rows: pa.Table) -> pa.Table:
    return rows


def measure_per_s(actors: int) -> float:
    """Runs the pipeline and returns its photos a second, after the first batches."""
    count = BATCH_PHOTOS * BATCHES * actors
    rows = [{"image_uri": f"s3://photos/{number:04d}.jpg", "image_etag": "1"} for number in range(count)]
    manifest = make_manifest(rows, category="pole")
    blocks = [manifest.slice(first, BATCH_PHOTOS) for first in range(0, count, BATCH_PHOTOS)]
    decoding = decode_manifest(ray.data.from_arrow(blocks), pass_on, tasks=actors)
    resources = ScoringResources(actors=actors)
    arguments = {"batch_s": BATCH_S}
    scored = map_in_scoring_actors(decoding, WaitingScorer, arguments, batch_photos=BATCH_PHOTOS, resources=resources)
    ends: list[float] = sorted(row["ended_at"] for row in scored.select_columns(["ended_at"]).iter_rows())
    warm = BATCH_PHOTOS * WARM_BATCHES * actors
    return (len(ends) - warm) / (ends[-1] - ends[warm - 1])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("actors", [1, 2])
def test_a_pipeline_of_so_many_workers_has_the_pace_that_the_model_says(cluster: str, actors: int) -> None:
    costs = {"decode_ms_per_megapixel": 1e-6, "row_ms": 0, "view_ms": 1000 * BATCH_S / BATCH_PHOTOS, "used_share": 1}
    fleet = size_fleet(actors, CapacityConfig.model_validate({"megapixels": 1, "views": 1, "costs": costs}))
    assert fleet.slowest == "fleet"
    assert fleet.run_per_s == pytest.approx(actors * BATCH_PHOTOS / BATCH_S)
    assert measure_per_s(actors) == pytest.approx(fleet.run_per_s, rel=0.2)
