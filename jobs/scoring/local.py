"""The scoring pipeline in this process, without Ray: for a small archive, seconds instead of a cluster's start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from jobs.cluster.datasets import DECODE_BATCH_PHOTOS
from jobs.cluster.progress import follow_rows
from jobs.cluster.tally import Reported
from jobs.cluster.telemetry import LocalTelemetry, Workload
from jobs.config import ScoringResources
from jobs.scoring.pipeline import make_fetch_decode
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.stage import ScoreImages
from jobs.storage import uris
from jobs.tables.files import regroup_batches
from jobs.tables.parquet import scan_parquet, write_parquet
from jobs.tables.schema import MANIFEST, STAGED

STAGED_ROWS = 4096
"""Rows of a staged file: what stopping a local run costs."""


def score_locally(
    parts: Sequence[str], *, rows: int, plan: ScoringPlan, resources: ScoringResources, folder: RunFolder
) -> Reported:
    """Scores the photos of a manifest into staging, batch after batch; returns what was done.

    Args:
        parts: Parquet files of MANIFEST rows.
        rows: their number.
        plan: detectors by category.
        resources: limits of decoding, memory for detectors, and whether a GPU scores.
        folder: of the run.
    """
    telemetry = LocalTelemetry()
    scored = follow_rows(
        score_batches(parts, rows=rows, plan=plan, resources=resources, telemetry=telemetry),
        activity="scoring",
        total=rows,
    )
    for number, table in enumerate(regroup_batches(scored, size_rows=STAGED_ROWS)):
        write_parquet(table, uris.join(folder.rows, f"local-{number:05d}.parquet"))
    return Reported(counts=dict(telemetry.counts), measures=dict(telemetry.measures))


def score_batches(
    parts: Sequence[str], *, rows: int, plan: ScoringPlan, resources: ScoringResources, telemetry: LocalTelemetry
) -> Iterator[pa.RecordBatch]:
    """Yields STAGED rows of the manifest's photos; the stages are those of the cluster."""
    decode = make_fetch_decode(plan, resources, measure=telemetry.add_measures)
    device = "cuda" if resources.use_gpu else "cpu"
    score = ScoreImages(
        plan=plan,
        cache_bytes=resources.detector_cache_bytes,
        telemetry=telemetry,
        device=device,
        workload=Workload(rows, 1, DECODE_BATCH_PHOTOS),
    )
    manifest = scan_parquet(parts, columns=MANIFEST.names, schema=MANIFEST)
    for batch in regroup_batches(manifest, size_rows=DECODE_BATCH_PHOTOS):
        yield from score(decode(batch)).cast(STAGED).to_batches()
