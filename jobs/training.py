"""Training as a job: decode, Ray Train workers, calibration, registration, alias."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer

from jobs import registry, storage, uris
from jobs.config import TrainConfig
from jobs.errors import EXIT_DONE, JobError, MissingObjectError, RequestError
from jobs.fetch import DECODED, FetchDecode, as_images
from jobs.manifest import list_archive
from jobs.pipeline import as_table, cause, decoded, start_ray
from jobs.progress import Progress
from model.backbone import Backbone
from model.calibration import smallest_sample
from model.splits import split_calibration
from model.weights import WeightsUnavailable, resolve_backbone_weights

FEWEST_PHOTOS = 2


def run(config: TrainConfig) -> int:
    """Trains, calibrates, registers and promotes one detector."""
    manifest = _flawless(config)
    weights = _backbone_weights(config)
    start_ray()
    detector_id, loss = _train(config, manifest, weights)
    print(f"detector {detector_id} of {config.category} ({config.detector.variant}): last epoch's loss {loss:.4f}")
    if config.alias:
        before = registry.set_alias(config.detectors, config.category, alias=config.alias, detector_id=detector_id)
        print(f"{config.alias} of {config.category}: {before or 'none'} -> {detector_id}")
    print(f"registered in {uris.join(config.detectors, config.category, detector_id)}")
    return EXIT_DONE


def _flawless(config: TrainConfig) -> pa.Table:
    """The training photos' MANIFEST rows, and warnings about what they cannot support."""
    folder = uris.join(config.data, config.category, "train", "good")
    manifest = list_archive(folder, key_pattern="(?P<category>)")
    if len(manifest) < FEWEST_PHOTOS:
        raise RequestError(f"expected at least {FEWEST_PHOTOS} flawless photos in {folder}, got {len(manifest)}")
    held_out = len(split_calibration(len(manifest), fraction=config.calibration_fraction, seed=config.detector.seed)[1])
    needed = smallest_sample(config.false_alarm_rate)
    if held_out < needed:
        print(
            f"warning: {held_out} held-out photos cannot support a false-alarm rate of {config.false_alarm_rate:g}: "
            f"{needed} are needed; with fewer no photo is ever flagged. Add photos or raise --calibration-fraction"
        )
    return manifest


def _backbone_weights(config: TrainConfig) -> dict[str, torch.Tensor] | None:
    try:
        weights = resolve_backbone_weights(config.detector, read=lambda uri: storage.read(uris.normalise(uri)))
        if weights is not None:
            Backbone(config.detector).load_features(weights)
        return weights
    except (WeightsUnavailable, ValueError, MissingObjectError) as error:
        raise RequestError(f"--detector.weights {config.detector.weights}: {error}") from error


def _train(config: TrainConfig, manifest: pa.Table, weights: dict[str, torch.Tensor] | None) -> tuple[str, float]:
    """Runs the Ray Train workers; returns the new detector's id and the last epoch's loss."""
    images = _decode(config, manifest)
    work = uris.join(config.detectors, ".train", f"{config.category}-{uuid4().hex[:8]}")
    filesystem, path = storage.arrow_filesystem(work)
    who = f"{config.variant} on {len(images)} photos of {config.category}, {config.workers} worker(s)"
    print(f"training {who}", flush=True)
    try:
        with Progress(config.optimiser.epochs, verb="training", unit="epoch") as progress:
            loop_config = {
                "config": config.model_dump(mode="json"),
                "images": ray.put(images),
                "weights": ray.put(weights),
                "report": progress.report,
                "manifest_hash": _manifest_hash(manifest),
            }
            trainer = TorchTrainer(
                _training_function(),
                train_loop_config=loop_config,
                scaling_config=ray.train.ScalingConfig(num_workers=config.workers, use_gpu=config.use_gpu),
                run_config=ray.train.RunConfig(name="train", storage_path=path, storage_filesystem=filesystem),
            )
            result: Any = trainer.fit()  # typed as Train V1's Result, which has no return_value
            detector_id, loss = result.return_value
    except (ray.exceptions.RayError, ray.train.TrainingFailedError) as error:
        raise JobError(f"training stopped: {cause(error)}") from error
    finally:
        storage.delete_tree(work)
    return detector_id, loss


def _training_function() -> Any:
    """What each worker runs.

    A function within a function travels by value: Ray Train's controller, which holds it too, need not import the
    network, and that takes longer than many a training.
    """

    def work(loop_config: dict[str, Any]) -> tuple[str, float] | None:
        from jobs.train_worker import work

        return work(loop_config)

    return work


def _decode(config: TrainConfig, manifest: pa.Table) -> np.ndarray:
    """Fetches and decodes the photos by the same stage as scoring; returns (N, 3, S, S) uint8 in manifest order."""
    size = config.detector.image_size
    fetch_decode = FetchDecode(image_sizes={"": size}, max_pixels=config.max_pixels, concurrency=32)
    rows = as_table(decoded(ray.data.from_arrow(manifest), fetch_decode, tasks=None), schema=DECODED).sort_by(
        "image_id"
    )
    for row in rows.filter(pc.is_valid(rows["error"])).select(["uri", "error"]).to_pylist():
        print(f"warning: left out {row['uri']}: {row['error']}")
    readable = rows.filter(pc.is_null(rows["error"]))
    if len(readable) < FEWEST_PHOTOS:
        raise JobError(f"needed at least {FEWEST_PHOTOS} readable flawless photos, got {len(readable)} of {len(rows)}")
    return as_images(readable["pixels"], size=size)


def _manifest_hash(manifest: pa.Table) -> str:
    """Names the training data: the same keys with the same bytes give the same hash."""
    lines = zip(manifest["uri"].to_pylist(), manifest["etag"].to_pylist(), strict=True)
    return hashlib.sha256("\n".join(f"{uri} {etag}" for uri, etag in sorted(lines)).encode()).hexdigest()
