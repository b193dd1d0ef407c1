"""The pipeline as Ray Data datasets, shared by the verbs: manifest -> decoded -> scored."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs
import ray

from jobs.config import ScoringResources
from jobs.decoder import DecodeLimits
from jobs.fetch import FetchDecode
from jobs.plan import ScoringPlan
from jobs.progress import Report
from jobs.stages import ScoreImages
from jobs.telemetry import RunTelemetry

DECODE_BATCH_PHOTOS = 32
BLOCK_PHOTOS = 128
"""Most photos in one block of a run of up to 100,000: what a crash repeats."""
MOST_BLOCK_PHOTOS = 1024
"""Most photos in one block of the largest runs: ten million are 10,000 decode tasks, not 78,000."""
BATCH_VECTORS = 64
"""Latent vectors of a scoring batch. Each batch reads the flow's weights anew, 20 ms for 344 MB, which is 0.3 ms a
vector where a view takes 7 to 40; and a run's first rows are there when a batch is."""
MOST_BATCH_VECTORS = 256
"""In the largest runs, and on a GPU: beyond it a flow is bound by arithmetic, not by memory."""
MOST_DEATHS = 10
"""How often a decode task, a scoring actor or a batch survives the death of its process; Ray's default is for ever."""
STAGED_FILE_ROWS = 8192
"""Rows of a staged file of the largest runs: ten million photos are 1,200 files, not 78,000."""
DECODE_CPUS = 0.5
"""A decode task waits for storage about half its time; and because this differs from a scoring actor's CPU, Ray Data
keeps the two stages apart instead of fusing them, so that photos are fetched while others are scored."""


def scoring_actors(resources: ScoringResources) -> int:
    """Number of scoring actors: as asked, else one per GPU, or one per core while CPU slots are left for decoding."""
    if resources.actors is not None:
        return resources.actors
    available: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray ships no types
    if resources.use_gpu:
        return max(1, int(available.get("GPU", 0)))
    slots = int(available.get("CPU", 1))
    is_one_machine = len(ray.nodes()) == 1  # type: ignore[no-untyped-call]  # ray ships no types
    cores = min(slots, os.cpu_count() or 1) if is_one_machine else slots
    return max(1, min(cores, slots - max(1, slots // 4)))


def batch_photos(rows: int, *, plan: ScoringPlan, resources: ScoringResources) -> int:
    """Photos per scoring batch of a run of ``rows``: as asked, else as many as give the flow enough latent vectors."""
    vectors = MOST_BATCH_VECTORS if resources.use_gpu else min(MOST_BATCH_VECTORS, max(BATCH_VECTORS, rows // 1000))
    fewest_views = min(detector.views for detector in plan.by_category.values())
    return resources.batch_photos or max(4, math.ceil(vectors / fewest_views))


def decode_limits(resources: ScoringResources) -> DecodeLimits:
    """What one photo may take of its decoder."""
    memory_bytes = int(resources.decode_memory_gib * 2**30)
    return DecodeLimits(timeout_s=resources.decode_timeout_s, memory_bytes=memory_bytes)


def read_manifest(
    path: str, *, filesystem: pyarrow.fs.FileSystem, rows: int, plan: ScoringPlan, resources: ScoringResources
) -> ray.data.Dataset:
    """The dataset of a manifest, in blocks that spread over the actors and are cheap to repeat after a crash.

    Args:
        path: Parquet file, or folder of them, of MANIFEST rows, a path within ``filesystem``.
        filesystem: pyarrow filesystem of the manifest.
        rows: number of manifest rows.
        plan: detectors by category.
        resources: share of the cluster.
    """
    batch = batch_photos(rows, plan=plan, resources=resources)
    block_rows = block_photos(rows, batch=batch, actors=scoring_actors(resources))
    return ray.data.read_parquet(path, filesystem=filesystem, override_num_blocks=math.ceil(rows / block_rows))


def block_photos(rows: int, *, batch: int, actors: int) -> int:
    """Photos of one block of a manifest of ``rows``: whole scoring batches, and about four blocks an actor or more.

    A block that ended within a batch would end in a small one, which the networks are slow with.
    """
    # A run so large that it has thousands of blocks takes larger ones: Ray spends 10-20 ms on each, and decoding cuts
    # them up again, for pixels come in blocks of DataContext.target_max_block_size.
    most = max(BLOCK_PHOTOS, min(MOST_BLOCK_PHOTOS, rows // 1000))
    wanted = min(most, math.ceil(rows / (4 * actors)))
    return max(1, wanted // batch) * batch


def staged_file_rows(rows: int) -> int:
    """Fewest rows of one staged file for a run of ``rows`` photos, and so what a killed run may have to repeat.

    Small runs keep files of one block; large ones have about a thousand files, until those hold STAGED_FILE_ROWS.
    """
    return max(1, min(STAGED_FILE_ROWS, rows // 1000))


def decoded(
    manifest: ray.data.Dataset, fetch_decode: Callable[[pa.Table], pa.Table], *, tasks: int | None
) -> ray.data.Dataset:
    """The dataset of DECODED rows for a dataset of MANIFEST rows: the one way from bytes to pixels.

    Args:
        manifest: MANIFEST rows.
        fetch_decode: the stage, a function or a method.
        tasks: most tasks at a time; None leaves it to the cluster's free CPUs.
    """
    return manifest.map_batches(
        fetch_decode,
        batch_size=DECODE_BATCH_PHOTOS,
        batch_format="pyarrow",
        num_cpus=DECODE_CPUS,
        compute=ray.data.TaskPoolStrategy(size=tasks),
        max_retries=MOST_DEATHS,
    )


def scored(
    manifest: ray.data.Dataset, *, rows: int, plan: ScoringPlan, resources: ScoringResources, report: Report
) -> ray.data.Dataset:
    """The dataset of STAGED rows for a dataset of MANIFEST rows; nothing runs until it is consumed.

    Args:
        manifest: MANIFEST rows.
        rows: their number.
        plan: detectors by category.
        resources: share of the cluster.
        report: tells the progress what each batch came to.
    """
    telemetry = RunTelemetry(run_id=plan.run_id, report=report)
    fetch_decode = FetchDecode(
        image_sizes={category: detector.image_size for category, detector in plan.by_category.items()},
        max_pixels=plan.max_pixels,
        concurrency=resources.fetch_concurrency,
        limits=decode_limits(resources),
        measure=telemetry.measured,
    )
    actors = scoring_actors(resources)
    # A decoder per CPU scorer is plenty, and each process takes seconds to import torch; GPUs want all they can get.
    decoding = decoded(manifest, fetch_decode.__call__, tasks=None if resources.use_gpu else actors)
    return in_scoring_actors(
        decoding,
        ScoreImages,
        {"plan": plan, "cache_bytes": resources.detector_cache_bytes, "telemetry": telemetry},
        batch_photos=batch_photos(rows, plan=plan, resources=resources),
        resources=resources,
    )


def in_scoring_actors(
    decoding: ray.data.Dataset,
    stage: type,
    arguments: Mapping[str, Any],
    *,
    batch_photos: int,
    resources: ScoringResources,
) -> ray.data.Dataset:
    """Runs a stage that loads detectors in as many actors as `scoring_actors` says, one GPU or core each.

    Args:
        decoding: DECODED rows.
        stage: maps a batch of them; its constructor also takes ``device``.
        arguments: the constructor's others.
        batch_photos: rows of a batch.
        resources: share of the cluster.
    """
    return decoding.map_batches(
        stage,
        fn_constructor_kwargs={**arguments, "device": "cuda" if resources.use_gpu else "cpu"},
        batch_size=batch_photos,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=1 if resources.use_gpu else None,
        # A fixed number: else Ray Data ends an actor that waits for storage, and starts another when photos come.
        compute=ray.data.ActorPoolStrategy(size=scoring_actors(resources), max_tasks_in_flight_per_actor=2),
        max_restarts=MOST_DEATHS,
        max_task_retries=MOST_DEATHS,
    )


def as_table(dataset: ray.data.Dataset, *, schema: pa.Schema) -> pa.Table:
    """Runs a dataset and collects its rows in this process."""
    tables = [ray.get(reference) for reference in dataset.to_arrow_refs()]
    return pa.concat_tables([table.cast(schema) for table in tables if len(table)] or [schema.empty_table()])
