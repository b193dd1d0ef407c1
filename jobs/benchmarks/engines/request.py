"""What an engine is asked to do, as a file; each engine is a process of its own, so that its start counts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from jobs import storage
from model.artifact import load_artifact
from model.inference.detector import build_scorer
from model.process import keep_freed_memory, prepare_process

SCORES = pa.schema([("image_uri", pa.string()), ("score", pa.float32()), ("scored_at", pa.float64())])
"""What an engine writes: ``scored_at`` is in seconds since 1970, of the batch."""


@dataclass(frozen=True)
class EngineRequest:
    """One run of one engine.

    Attributes:
        artifact: local folder of the detector.
        archive: URI of the folder whose photos are scored.
        output: URI of the Parquet file or folder to write, SCORES rows.
        image_size: side in pixels of the network's input.
        batch_photos: photos of a batch.
        processes: one per core.
    """

    artifact: str
    archive: str
    output: str
    image_size: int
    batch_photos: int
    processes: int

    def write(self, file: Path) -> None:
        """Writes the request as JSON."""
        file.write_text(json.dumps(asdict(self)))


def run_engine(score: Callable[[EngineRequest], None]) -> None:
    """Runs an engine on the request whose file is the first argument of its process."""
    score(EngineRequest(**json.loads(Path(sys.argv[1]).read_text())))


class Network:
    """The detector of a request, compiled, on one thread: the same code in every engine."""

    def __init__(self, artifact: str) -> None:
        """Loads the detector."""
        prepare_process()
        keep_freed_memory()
        self._scorer = build_scorer(load_artifact(Path(artifact)).detector)

    def score(self, images: Tensor | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Scores uint8 (N, 3, H, W) RGB, or (N, H, W, 3) where it is an array: (N,)."""
        if not isinstance(images, Tensor):
            images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        scores: npt.NDArray[np.float32] = self._scorer.score(images).numpy().astype(np.float32)
        return scores


def make_rows(uris: Sequence[str], scores: npt.NDArray[np.float32]) -> pa.Table:
    """Returns SCORES rows of a batch of N photos that was scored now; ``scores``: (N,)."""
    return pa.table({"image_uri": list(uris), "score": scores, "scored_at": [time.time()] * len(uris)}, schema=SCORES)


def write_rows(batches: Sequence[pa.Table], uri: str) -> None:
    """Writes all batches as one Parquet file."""
    filesystem, path = storage.resolve_filesystem(uri)
    pq.write_table(pa.concat_tables(batches), path, filesystem=filesystem)
