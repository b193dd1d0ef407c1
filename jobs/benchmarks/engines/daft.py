"""Daft with a class as its UDF: it lists, downloads, decodes and resizes by its own expressions, then scores batches.

``python -m jobs.benchmarks.engines.daft REQUEST.json``, where Daft is installed (extra `engines`).
"""

from __future__ import annotations

import os

import daft
import numpy as np
import pyarrow as pa
from daft import DataType, col
from daft.functions import decode_image, download, resize
from daft.io import IOConfig, S3Config

from jobs.benchmarks.engines.request import EngineRequest, Network, make_rows, run_engine
from jobs.storage import uris

_SCORED = DataType.struct({"score": DataType.float32(), "scored_at": DataType.float64()})


def make_predictor(request: EngineRequest) -> type:
    """Makes the class whose one instance holds the network. One, because two processes of it were slower here."""

    @daft.cls(max_concurrency=1)
    class DaftPredict:
        def __init__(self, artifact: str) -> None:
            self._network = Network(artifact)

        @daft.method.batch(return_dtype=_SCORED, batch_size=request.batch_photos)  # type: ignore[untyped-decorator]
        def score(self, images: daft.Series) -> pa.Array:
            scores = self._network.score(np.stack(images.to_pylist()))
            rows = make_rows([""] * len(scores), scores).select(["score", "scored_at"])
            return rows.to_struct_array().combine_chunks()

    return DaftPredict


def make_settings(archive: str) -> IOConfig:
    """Makes Daft's settings of the storage; it looks for credentials at once, which a local folder may not have."""
    if not archive.startswith("s3://"):
        return IOConfig()
    return IOConfig(s3=S3Config.from_env().replace(endpoint_url=os.environ.get("AWS_ENDPOINT_URL")))


def score_with_daft(request: EngineRequest) -> None:
    """Scores the photos of a request."""
    stored = make_settings(request.archive)
    predictor = make_predictor(request)(request.artifact)
    paths = daft.from_glob_path(uris.join(request.archive, "**"), io_config=stored)
    photos = decode_image(download(col("path"), io_config=stored), mode="RGB")
    images = resize(photos, request.image_size, request.image_size)
    scored = paths.select(col("path").alias("image_uri"), predictor.score(images).alias("scored"))
    fields = [col("scored").get(name).alias(name) for name in ("score", "scored_at")]
    scored.select(col("image_uri"), *fields).write_parquet(request.output, io_config=stored)


if __name__ == "__main__":
    run_engine(score_with_daft)
