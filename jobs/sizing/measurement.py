"""Measures what a photo costs on this machine, with a user's own photos and the stages of the real job."""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
import yaml

from jobs import storage
from jobs.benchmarks.process_tree import measure_cpu_s
from jobs.decoding.fetch import stack_images
from jobs.decoding.photos import FETCH_CONCURRENCY, make_fetch_decode
from jobs.errors import RequestError
from jobs.sizing.config import CapacityConfig
from jobs.sizing.plan import KEYS_PER_LIST
from jobs.storage import ObjectInfo
from jobs.tables.manifest import make_manifest
from model.config import MAX_PIXELS, DetectorConfig
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.presets import get_random_preset
from model.process import keep_freed_memory, prepare_process

_BATCH_VECTORS = 64


@dataclass(frozen=True)
class MeasuredPhotos:
    """What the photos of a folder cost.

    Attributes:
        megapixels: mean of their size as stored.
        mb: mean of their files, in 1e6 bytes.
        decode_ms: CPU for each: fetched, decoded, resized.
        images: uint8 (N, 3, S, S) of those that could be read.
    """

    megapixels: float
    mb: float
    decode_ms: float
    images: torch.Tensor


def measure_costs(config: CapacityConfig) -> CapacityConfig:
    """Measures photos, network and listing, and returns the configuration with what was found in place of defaults.

    Raises:
        RequestError: no photo lies there, or none can be read.
    """
    prepare_process()
    keep_freed_memory()
    detector = make_detector_config(config)
    listed, list_s = list_photos(str(config.measure), at_most=max(KEYS_PER_LIST, config.measure_photos))
    photos = measure_photos(listed[: config.measure_photos], size=detector.image_size)
    found = {
        "decode_ms_per_megapixel": photos.decode_ms / photos.megapixels,
        "view_ms": measure_view_ms(detector, photos.images),
        "list_s_per_million": list_s / math.ceil(len(listed) / KEYS_PER_LIST) * 1e6 / KEYS_PER_LIST,
    }
    given = config.costs.model_dump(exclude_unset=True)
    costs = config.costs.model_copy(
        update={name: round(value, 4) for name, value in found.items() if name not in given}
    )
    sizes = {"megapixels": round(photos.megapixels, 3), "photo_mb": round(photos.mb, 4)}
    measured = config.model_copy(
        update={"costs": costs} | {n: v for n, v in sizes.items() if n not in config.model_fields_set}
    )
    print(f"measured {len(photos.images)} photos: {describe_found(sizes | found)}", file=sys.stderr, flush=True)
    if config.save is not None:
        save_costs(measured, Path(config.save))
    return measured


def make_detector_config(config: CapacityConfig) -> DetectorConfig:
    """Makes the configuration of the detector whose cost was asked for; its weights are random."""
    return get_random_preset(config.preset, precision=config.precision, views=config.views)


def list_photos(folder: str, *, at_most: int) -> tuple[list[ObjectInfo], float]:
    """Lists the first objects of a folder, and returns the seconds that took. Raises RequestError where none is."""
    began = time.perf_counter()
    found = list(itertools.islice(storage.list_objects(folder), at_most))
    if not found:
        raise RequestError(f"{folder} is empty: expected photos under this prefix to measure with")
    return found, time.perf_counter() - began


def measure_photos(listed: Sequence[ObjectInfo], *, size: int) -> MeasuredPhotos:
    """Measures fetching and decoding by the stage that scoring has, after a batch that warms it up.

    Raises:
        RequestError: none of the photos can be read.
    """
    rows = [{"image_uri": one.uri, "image_etag": one.etag} for one in listed]
    manifest = make_manifest(rows, category="measured")
    stage = make_fetch_decode(manifest, size=size, max_pixels=MAX_PIXELS)
    stage(manifest.slice(0, 2))
    began = measure_cpu_s(os.getpid())
    parts = [stage(manifest.slice(first, FETCH_CONCURRENCY)) for first in range(0, len(manifest), FETCH_CONCURRENCY)]
    decode_ms = 1000 * (measure_cpu_s(os.getpid()) - began) / len(manifest)
    table = pa.concat_tables(parts)
    readable = table.filter(pc.is_null(table["error"]))
    if not len(readable):
        raise RequestError(f"none of {len(table)} photos can be read, the first: {table['error'][0]}")
    pixels = pc.multiply(readable["width"].cast(pa.int64()), readable["height"].cast(pa.int64()))
    return MeasuredPhotos(
        megapixels=pc.mean(pixels).as_py() / 1e6,
        mb=sum(one.size_bytes for one in listed) / len(listed) / 1e6,
        decode_ms=decode_ms,
        images=torch.from_numpy(stack_images(readable["pixels"], size=size)),
    )


def measure_view_ms(config: DetectorConfig, images: torch.Tensor) -> float:
    """Measures the CPU ms of a view in batches as the job has them, after one that warms up and compiles."""
    scorer = build_scorer(AttentDifferNet(config).eval())
    batch = max(4, _BATCH_VECTORS // config.views)
    repeated = images.repeat(math.ceil(batch / len(images)), 1, 1, 1)
    scorer.score(repeated[:batch])
    began = time.process_time()
    for first in range(0, len(repeated), batch):
        scorer.score(repeated[first : first + batch])
    return 1000 * (time.process_time() - began) / (len(repeated) * config.views)


def save_costs(config: CapacityConfig, path: Path) -> None:
    """Writes what was measured as YAML, which ``--config`` reads."""
    kept = {"preset", "precision", "views", "megapixels", "photo_mb", "costs"}
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", include=kept, exclude_none=True)))


def describe_found(found: dict[str, float]) -> str:
    """Returns the names and values of what was measured."""
    return ", ".join(f"{name} {value:.4g}" for name, value in found.items())
