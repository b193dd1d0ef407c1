"""The bare loop that a Ray job is measured against: one process per core, each fetches, decodes and scores its share.

No Ray and none of its stages: what somebody writes by hand who knows obstore, simplejpeg and the compiled networks.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty

from jobs import storage
from jobs.decoding.photos import decode_images
from jobs.errors import JobError
from model.artifact import load_artifact
from model.inference.detector import build_scorer
from model.process import keep_freed_memory, prepare_process

_VECTORS_PER_BATCH = 256
_READY_TIMEOUT_S = 300
_POLL_INTERVAL_S = 5.0


@dataclass(frozen=True)
class _Share:
    """What one process does: its photos, with the artifact in ``folder``."""

    folder: Path
    uris: Sequence[str]


def measure_loop(folder: Path, uris: Sequence[str], *, processes: int) -> float:
    """Returns photos per second of all processes together, from the moment that all are warm until each is done.

    Args:
        folder: an artifact.
        uris: photos.
        processes: one per core.

    Raises:
        JobError: a process ended early.
    """
    context = multiprocessing.get_context("spawn")  # forked, torch's threads would be missing
    barrier, rates = context.Barrier(processes), context.Queue()
    shares = [_Share(folder, uris[rank::processes]) for rank in range(processes)]
    workers = [context.Process(target=_score_share, args=(share, barrier, rates)) for share in shares]
    for worker in workers:
        worker.start()
    total = sum(receive_rate(rates, workers) for _ in workers)
    for worker in workers:
        worker.join()
    return total


def receive_rate(rates: Queue[float], workers: Sequence[SpawnProcess]) -> float:
    """Waits for the rate of one process; gives up where a process has failed.

    Raises:
        JobError: one has failed.
    """
    while True:
        try:
            return rates.get(timeout=_POLL_INTERVAL_S)
        except Empty:
            if failed := [worker.exitcode for worker in workers if worker.exitcode]:
                raise JobError(f"a process of the bare loop ended with exit code {failed[0]}: see its log") from None


def _score_share(share: _Share, barrier: Barrier, rates: Queue[float]) -> None:
    prepare_process()
    keep_freed_memory()
    detector = load_artifact(share.folder).detector
    scorer = build_scorer(detector)
    size, batch = detector.config.image_size, max(4, _VECTORS_PER_BATCH // detector.config.views)

    def score(uris: Sequence[str]) -> None:
        photos = asyncio.run(fetch_photos(uris))
        scorer.score(decode_images(photos, size=size))

    score(share.uris[:batch])
    barrier.wait(_READY_TIMEOUT_S)
    began = time.perf_counter()
    for start in range(0, len(share.uris), batch):
        score(share.uris[start : start + batch])
    rates.put(len(share.uris) / (time.perf_counter() - began))


async def fetch_photos(uris: Sequence[str]) -> list[bytes]:
    """Reads photos' bytes at once, in the order of ``uris``."""
    answers = await asyncio.gather(*(storage.read_async(uri) for uri in uris))
    return [bytes(data) for data, _ in answers]
