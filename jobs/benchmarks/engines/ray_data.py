"""Ray Data as the template of its documentation does it: read_images, preprocess, map_batches with actors, write.

``python -m jobs.benchmarks.engines.ray_data REQUEST.json``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from jobs import storage
from jobs.benchmarks.engines.request import EngineRequest, Network, make_rows, run_engine
from jobs.cluster.session import start_own_ray


class Predict:
    """Holds the network of one actor, as the template's ResnetModel does."""

    def __init__(self, artifact: str) -> None:
        """Loads it once."""
        self._network = Network(artifact)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scores a batch."""
        rows = make_rows(list(batch["path"]), self._network.score(np.stack(list(batch["image"]))))
        return {name: rows.column(name).to_numpy() for name in rows.column_names}


def score_with_ray_data(request: EngineRequest) -> None:
    """Scores the photos of a request."""
    start_own_ray()
    filesystem, path = storage.resolve_filesystem(request.archive)
    size = (request.image_size, request.image_size)
    photos = ray.data.read_images(path, filesystem=filesystem, mode="RGB", size=size, include_paths=True)
    scored = photos.map_batches(
        Predict,
        fn_constructor_args=(request.artifact,),
        batch_size=request.batch_photos,
        compute=ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    filesystem, path = storage.resolve_filesystem(request.output)
    scored.write_parquet(path, filesystem=filesystem)
    ray.shutdown()


if __name__ == "__main__":
    run_engine(score_with_ray_data)
