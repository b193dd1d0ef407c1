"""The scoring pipeline in this process, without Ray: for a small archive, seconds instead of a cluster's start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from jobs.cluster.datasets import DECODE_BATCH_PHOTOS
from jobs.cluster.progress import follow_rows
from jobs.cluster.tally import Reported
from jobs.cluster.telemetry import LocalTelemetry, Workload
from jobs.config import ScoringResources
from jobs.errors import RequestError
from jobs.scoring.pipeline import make_fetch_decode
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.publication.slices import select_rows
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.stage import ScoreImages
from jobs.tables.files import regroup_batches
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import MANIFEST, STAGED


class LocalScorer:
    """Scores photos batch after batch; the stages are those of the cluster.

    Args:
        rows: how many photos it will get.
        plan: detectors by category.
        resources: limits of decoding, memory for detectors, and whether a GPU scores.
    """

    def __init__(self, rows: int, *, plan: ScoringPlan, resources: ScoringResources) -> None:
        """Loads the first category's detector."""
        self._telemetry = LocalTelemetry()
        self._decode = make_fetch_decode(plan, resources, measure=self._telemetry.add_measures)
        device = "cuda" if resources.use_gpu else "cpu"
        self._score = ScoreImages(
            plan=plan,
            cache_bytes=resources.detector_cache_bytes,
            telemetry=self._telemetry,
            device=device,
            workload=Workload(rows, 1, DECODE_BATCH_PHOTOS),
            is_worker=False,
        )

    @property
    def reported(self) -> Reported:
        """What was done so far."""
        return Reported(counts=dict(self._telemetry.counts), measures=dict(self._telemetry.measures))

    def score_rows(self, manifest: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields STAGED rows of MANIFEST rows."""
        for batch in regroup_batches(manifest, size_rows=DECODE_BATCH_PHOTOS):
            yield from self._score(self._decode(batch)).cast(STAGED).to_batches()


def check_device(resources: ScoringResources) -> None:
    """Checks that this machine has the device that scoring asks for.

    Raises:
        RequestError: a GPU is asked for, and torch finds none.
    """
    if not resources.use_gpu:
        return
    from torch import cuda  # the network's library, which a command without a GPU loads later

    if not cuda.is_available():
        raise RequestError(
            "--scoring.use-gpu with --local needs 1 GPU, this machine has 0 that torch can use: leave the flag out, "
            "or install NVIDIA's driver"
        )


def score_slices(committer: SliceCommitter, folder: RunFolder, *, scorer: LocalScorer) -> None:
    """Scores and commits what is left of a run, slice after slice.

    Args:
        committer: has the slices.
        folder: of the run.
        scorer: scores their photos.
    """
    for part in committer.left:
        files = folder.list_manifest_parts(part.first, part.end)
        manifest = select_rows(scan_parquet(files, columns=MANIFEST.names, schema=MANIFEST), part)
        name = f"scoring slice {part.number + 1} of {len(committer.slices)}" if len(committer.slices) > 1 else "scoring"
        scored = follow_rows(scorer.score_rows(manifest), activity=name, total=part.rows)
        # A list, so that Ctrl-C comes here and not into the database that takes the rows.
        committer.commit_next(list(scored))
