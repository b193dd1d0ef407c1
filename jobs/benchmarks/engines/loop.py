"""Bare processes, one per core, without an engine: fetch, decode by our own code, score. The bound of the others.

``python -m jobs.benchmarks.engines.loop REQUEST.json``
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence

import pyarrow as pa
from torch import Tensor

from jobs import storage
from jobs.benchmarks.engines.request import EngineRequest, Network, make_rows, run_engine, write_rows
from jobs.benchmarks.loop import fetch_photos
from jobs.decoding.photos import decode_images


def score_with_processes(request: EngineRequest) -> None:
    """Scores the photos of a request."""
    uris = [info.uri for info in storage.list_objects(request.archive)]
    shares = [(request, uris[rank :: request.processes]) for rank in range(request.processes)]
    with multiprocessing.get_context("spawn").Pool(request.processes) as pool:
        write_rows(pool.starmap(score_share, shares, chunksize=1), request.output)


def score_share(request: EngineRequest, uris: Sequence[str]) -> pa.Table:
    """Scores the photos of one process: SCORES rows."""
    network = Network(request.artifact)
    batches = [uris[first : first + request.batch_photos] for first in range(0, len(uris), request.batch_photos)]
    return pa.concat_tables([make_rows(batch, network.score(read_photos(batch, request))) for batch in batches])


def read_photos(uris: Sequence[str], request: EngineRequest) -> Tensor:
    """Fetches and decodes a batch: uint8 (N, 3, H, W)."""
    return decode_images(asyncio.run(fetch_photos(uris)), size=request.image_size)


if __name__ == "__main__":
    run_engine(score_with_processes)
