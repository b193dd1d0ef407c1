"""The scoring pipeline on a Ray cluster: the photos of a run into staging, from which slices are committed."""

from __future__ import annotations

import time
from typing import Protocol

import pyarrow as pa
import pyarrow.fs
import ray

from jobs import storage
from jobs.cluster.progress import Progress
from jobs.cluster.session import explain_error, start_ray
from jobs.cluster.tally import Report, Reported
from jobs.config import ScoringResources
from jobs.errors import JobError
from jobs.scoring.config import ScoreConfig
from jobs.scoring.pipeline import choose_file_rows, read_box_manifest, read_manifest, score_photos
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.preparation import StagedRun
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.run_folder import RunFolder
from jobs.storage.lease import Lease

MIN_SLICE_FILES = 8
"""Staged files of a slice, at least: a slice waits for the last of them, which has rows of the next slice too."""


class Pipeline(Protocol):
    """MANIFEST rows to STAGED rows, see `jobs.scoring.pipeline.score_photos`."""

    def __call__(
        self, manifest: ray.data.Dataset, *, rows: int, plan: ScoringPlan, resources: ScoringResources, report: Report
    ) -> ray.data.Dataset:
        """Nothing runs until the dataset is consumed."""


def score_into_staging(
    config: ScoreConfig,
    folder: RunFolder,
    *,
    staged: StagedRun,
    lease: Lease,
    committer: SliceCommitter,
    pipeline: Pipeline | None = None,
) -> tuple[dict[str, float], Reported]:
    """Runs the pipeline into staging, with Ray Data's checkpoint; slices that are complete are committed meanwhile.

    Args:
        config: the request.
        folder: of the run.
        staged: what is to be scored.
        lease: of the run; the pipeline stops when it is lost.
        committer: commits slices.
        pipeline: in place of `score_photos`.

    Returns:
        Timings in seconds, and what the stages have reported.

    Raises:
        JobError: the pipeline stopped; the same command continues it.
    """
    began = time.monotonic()
    start_ray()
    ray_s = time.monotonic() - began
    filesystem, rows_path = storage.resolve_filesystem(folder.rows)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = ray.data.checkpoint.CheckpointConfig(
        id_column="image_id",
        checkpoint_path=storage.resolve_filesystem(folder.checkpoint)[1],
        delete_checkpoint_on_success=False,
        override_filesystem=filesystem,
    )
    rows, plan, resources = staged.to_score, staged.plan, config.scoring
    manifest_path = storage.resolve_filesystem(folder.manifest)[1]
    try:
        with Progress(rows, activity="scoring") as progress, committer.follow_pipeline(progress.stop):
            lease.on_loss(lambda: progress.stop(f"the lease {folder.lease} is lost"))
            if staged.has_boxes:
                files = folder.list_manifest_parts(0, rows)
                manifest = read_box_manifest(files, rows=rows, plan=plan, resources=resources)
            else:
                manifest = read_manifest(
                    manifest_path, filesystem=filesystem, rows=rows, plan=plan, resources=resources
                )
            dataset = (pipeline or score_photos)(
                manifest, rows=rows, plan=plan, resources=resources, report=progress.report
            )
            progress.report.describe("starting processes, loading detectors, fetching the first photos")
            started_wall = time.time()
            write_staged(dataset, rows_path, filesystem=filesystem, staged=staged)
    finally:
        context.checkpoint_config = None
    reported = progress.reported
    timings_s = {"ray_start": ray_s, "scoring": time.monotonic() - began - ray_s}
    if reported.first_at:
        timings_s["to_first_batch"] = reported.first_at - started_wall
    return timings_s, reported


def write_staged(dataset: ray.data.Dataset, path: str, *, filesystem: pyarrow.fs.FileSystem, staged: StagedRun) -> None:
    """Runs a dataset and writes its rows to staging.

    Raises:
        JobError: it stopped.
    """
    # Files of a large run are large, but never so that a slice waits for rows of the next.
    file_rows = min(choose_file_rows(staged.to_score), max(1, staged.slice_photos // MIN_SLICE_FILES))
    try:
        dataset.write_parquet(path, filesystem=filesystem, min_rows_per_file=file_rows)
    except (ray.exceptions.RayError, pa.ArrowException, OSError) as error:  # reading and writing raise theirs
        reason = explain_error(error)
        raise JobError(f"scoring stopped: {reason}; the same command continues where it stopped") from error
