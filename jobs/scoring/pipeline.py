"""The pipeline as Ray Data datasets, shared by the commands: manifest -> decoded -> scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow.fs
import ray

from jobs.cluster.datasets import (
    count_most_scoring_actors,
    decode_manifest,
    map_in_scoring_actors,
    wait_for_scoring_resources,
)
from jobs.cluster.manifest_blocks import read_blocks
from jobs.cluster.tally import Report
from jobs.cluster.telemetry import RunTelemetry, Workload
from jobs.config import ScoringResources
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.run_folder import MANIFEST_PART_ROWS
from jobs.scoring.stage import ScoreImages, make_fetch_decode

BLOCK_PHOTOS = 128
"""Most photos in one block of a run of up to 100,000: what a crash repeats."""
MAX_BLOCK_PHOTOS = 1024
"""Most photos in one block of the largest runs: ten million are 10,000 decode tasks, not 78,000."""
BATCH_VECTORS = 64
"""Latent vectors of a scoring batch. Each batch reads the flow's weights anew, 20 ms for 344 MB, which is 0.3 ms a
vector where a view takes 7 to 40; and a run's first rows are there when a batch is."""
MAX_BATCH_VECTORS = 256
"""In the largest runs: beyond it a flow is bound by arithmetic, not by memory."""
GPU_BATCH_VECTORS = 1024
"""On a GPU: four parts, so that three of them are copied while others are computed, see jobs.scoring.batch_scoring."""
MAX_GPU_BATCH_PHOTOS = 512
"""308 MB at 448 px, which lie in pinned memory."""
STAGED_FILE_ROWS = 8192
"""Rows of a staged file of the largest runs: ten million photos are 1,200 files, not 78,000."""


def choose_batch_photos(rows: int, *, plan: ScoringPlan, resources: ScoringResources) -> int:
    """Returns photos per scoring batch for ``rows``: as asked, else enough latent vectors for the flow."""
    vectors = GPU_BATCH_VECTORS if resources.use_gpu else min(MAX_BATCH_VECTORS, max(BATCH_VECTORS, rows // 1000))
    fewest = min(detector.vectors for detector in plan.by_category.values())
    wanted = max(4, math.ceil(vectors / fewest))
    return resources.batch_photos or (min(wanted, MAX_GPU_BATCH_PHOTOS) if resources.use_gpu else wanted)


def read_manifest(
    path: str, *, filesystem: pyarrow.fs.FileSystem, rows: int, plan: ScoringPlan, resources: ScoringResources
) -> ray.data.Dataset:
    """Reads a manifest as a dataset, in blocks that spread over the actors and are cheap to repeat after a crash.

    Args:
        path: Parquet file, or folder of them, of MANIFEST rows, a path within ``filesystem``.
        filesystem: pyarrow filesystem of the manifest.
        rows: number of manifest rows.
        plan: detectors by category.
        resources: share of the cluster.
    """
    batch = choose_batch_photos(rows, plan=plan, resources=resources)
    block_rows = choose_block_photos(rows, batch=batch, actors=count_most_scoring_actors(resources))
    blocks = math.ceil(rows / block_rows)
    # Without partitioning: folders named key=value above the results would become columns.
    return ray.data.read_parquet(path, filesystem=filesystem, partitioning=None, override_num_blocks=blocks)


def read_box_manifest(
    files: Sequence[str], *, rows: int, plan: ScoringPlan, resources: ScoringResources
) -> ray.data.Dataset:
    """Reads a manifest with boxes as `read_manifest` does, in blocks of whole photos, so that each is fetched once.

    Args:
        files: URIs of the manifest's parts.
        rows: number of manifest rows.
        plan: detectors by category.
        resources: share of the cluster.
    """
    batch = choose_batch_photos(rows, plan=plan, resources=resources)
    block_rows = choose_block_photos(rows, batch=batch, actors=count_most_scoring_actors(resources))
    return read_blocks(files, part_rows=MANIFEST_PART_ROWS, rows=rows, block_rows=block_rows)


def choose_block_photos(rows: int, *, batch: int, actors: int) -> int:
    """Returns photos per block of ``rows``: whole scoring batches, and about four blocks an actor or more.

    A block that ended within a batch would end in a small one, which the networks are slow with.
    """
    # A run so large that it has thousands of blocks takes larger ones: Ray spends 10-20 ms on each, and decoding cuts
    # them up again, for pixels come in blocks of DataContext.target_max_block_size.
    most = max(BLOCK_PHOTOS, min(MAX_BLOCK_PHOTOS, rows // 1000))
    wanted = min(most, math.ceil(rows / (4 * actors)))
    return max(1, wanted // batch) * batch


def choose_file_rows(rows: int) -> int:
    """Returns the fewest rows of a staged file for ``rows`` photos, and so what a killed run may have to repeat.

    Small runs keep files of one block; large ones have about a thousand files, until those hold STAGED_FILE_ROWS.
    """
    return max(1, min(STAGED_FILE_ROWS, rows // 1000))


def score_photos(
    manifest: ray.data.Dataset, *, rows: int, plan: ScoringPlan, resources: ScoringResources, report: Report
) -> ray.data.Dataset:
    """Returns STAGED rows for a dataset of MANIFEST rows; nothing runs until the dataset is consumed.

    Args:
        manifest: MANIFEST rows.
        rows: their number.
        plan: detectors by category.
        resources: share of the cluster.
        report: tells the progress what each batch came to.

    Raises:
        RequestError: the cluster has less than ``resources``, and cannot grow.
    """
    wait_for_scoring_resources(resources)
    telemetry = RunTelemetry(run_id=plan.run_id, report=report)
    fetch_decode = make_fetch_decode(plan, resources, measure=telemetry.add_measures)
    actors = count_most_scoring_actors(resources)
    # A decoder per CPU scorer is plenty, and each process takes seconds to import torch; GPUs want all they can get.
    tasks = None if resources.use_gpu else actors
    decoding = decode_manifest(manifest, fetch_decode.__call__, tasks=tasks, report=report)
    batch_photos = choose_batch_photos(rows, plan=plan, resources=resources)
    return map_in_scoring_actors(
        decoding,
        ScoreImages,
        {
            "plan": plan,
            "cache_bytes": resources.detector_cache_bytes,
            "telemetry": telemetry,
            "workload": Workload(rows, actors, batch_photos),
        },
        batch_photos=batch_photos,
        resources=resources,
        report=report,
    )
