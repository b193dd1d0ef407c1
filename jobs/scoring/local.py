"""The scoring pipeline in this process, without Ray: for a small archive, seconds instead of a cluster's start."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

from jobs.cluster.progress import follow_rows
from jobs.cluster.tally import Reported
from jobs.cluster.telemetry import LocalTelemetry, Workload
from jobs.config import ScoringResources
from jobs.decoding.fetch import DECODE_BATCH_PHOTOS
from jobs.errors import RequestError
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.publication.slices import select_rows
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.stage import ScoreImages, make_fetch_decode
from jobs.tables.files import regroup_batches
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import MANIFEST, STAGED
from model.processor import count_cores

AHEAD_BATCHES = 2
"""Batches that are fetched, decoded or wait while one is scored: 77 MB of pixels at 448 px."""
MANY_PHOTOS = 2_000
"""From here on a second process that decodes is worth its start, 2 s of CPU."""
MAX_DECODERS = 2
"""More than that and the one thread that scores is what all wait for."""
_T = TypeVar("_T")
_R = TypeVar("_R")


class LocalScorer:
    """Scores photos batch after batch; the stages are those of the cluster.

    Args:
        rows: how many photos it will get.
        plan: detectors by category.
        resources: limits of decoding, memory for detectors, and whether a GPU scores.
    """

    def __init__(self, rows: int, *, plan: ScoringPlan, resources: ScoringResources) -> None:
        """Loads the first category's detector, while the process that decodes starts."""
        self._telemetry = LocalTelemetry()
        decoders = min(count_cores(), MAX_DECODERS) if rows >= MANY_PHOTOS else 1
        self._decode = make_fetch_decode(plan, resources, measure=self._telemetry.add_measures, decoders=decoders)
        self._decode.start()
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
        return self._telemetry.reported

    def score_rows(self, manifest: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields STAGED rows of MANIFEST rows; a batch is decoded while the one before it is scored."""
        batches = regroup_batches(manifest, size_rows=DECODE_BATCH_PHOTOS)
        turns = self._decode.make_turns()
        with run_loop() as loop:

            def begin(rows: pa.Table) -> Future[pa.Table]:
                return asyncio.run_coroutine_threadsafe(self._decode.decode_batch(rows, turns), loop)

            for decoded in map_ahead(begin, batches, ahead=AHEAD_BATCHES):
                yield from self._score(decoded).cast(STAGED).to_batches()


@contextmanager
def run_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Runs an event loop in a thread, until the block ends; what is under way then is cancelled."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="decoding", daemon=True)
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def map_ahead(begin: Callable[[_T], Future[_R]], items: Iterable[_T], *, ahead: int) -> Iterator[_R]:
    """Yields the result of each item in order, and begins up to ``ahead`` further ones meanwhile.

    An error is raised where its result would have come; what is begun then is cancelled.
    """
    waiting: deque[Future[_R]] = deque()
    try:
        for item in items:
            waiting.append(begin(item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


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
