"""The main job: list, leave out what is known, score with Ray Data into staging, commit slice after slice."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.fs
import ray

from jobs import storage
from jobs.cluster.progress import Progress
from jobs.cluster.run_log import RunLog, log_as_json
from jobs.cluster.session import explain_error, start_ray
from jobs.cluster.tally import Report, Reported
from jobs.config import ScoringResources
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, JobError
from jobs.explanation.choice import Choice, parse_choice
from jobs.explanation.outcome import describe_maps
from jobs.results.known import stream_rows
from jobs.results.orphans import remove_orphans
from jobs.scoring.config import ScoreConfig
from jobs.scoring.local import LocalScorer, check_device, score_slices
from jobs.scoring.pipeline import choose_file_rows, read_box_manifest, read_manifest, score_photos
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.preparation import StagedRun, check_folders, check_same_run, prepare_run
from jobs.scoring.publication.abandoned import remove_abandoned_staging
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.publication.rivals import describe_rivals, list_rivals
from jobs.scoring.publication.tally import tally_run
from jobs.scoring.record import Published, count_fetched, make_record, read_record, write_record
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.summary import COLUMNS, list_alarms, summarize_run
from jobs.storage.lease import Lease, hold_lease

MIN_SLICE_FILES = 8
"""Staged files of a slice, at least: a slice waits for the last of them, which has rows of the next slice too."""


class Pipeline(Protocol):
    """MANIFEST rows to STAGED rows, see `jobs.scoring.pipeline.score_photos`."""

    def __call__(
        self, manifest: ray.data.Dataset, *, rows: int, plan: ScoringPlan, resources: ScoringResources, report: Report
    ) -> ray.data.Dataset:
        """Nothing runs until the dataset is consumed."""


def score_archive(config: ScoreConfig, *, pipeline: Pipeline = score_photos) -> int:
    """Scores what is new in the archive, publishes it, says what was found and returns the exit code.

    Args:
        config: the request.
        pipeline: what turns objects into rows; another one is for measuring all that stands around it.
    """
    log, folder = RunLog(config.run_id), RunFolder(config.results, config.run_id)
    if config.log_format == "json":
        log_as_json()
    log.event("run_started", {"archive": config.archive, "results": config.results})
    try:
        record = ensure_published(config, folder, log=log, pipeline=pipeline)
    except BaseException as error:
        log.event("run_stopped", {"error": f"{type(error).__name__}: {error}"})
        raise
    rows = stream_rows(config.results, COLUMNS, run_id=config.run_id)
    print(summarize_run(record, rows, folder=folder, top=config.top))
    alarms = list_alarms(count_fetched(record["counts"], record.get("rescored", 0)), config)
    for alarm in alarms:
        log.event("alarm", {"reason": alarm})
        print(f"alarm: {alarm}; exit code {EXIT_TOO_MANY_UNREADABLE}", file=sys.stderr, flush=True)
    if choice := parse_choice(config.explain):
        explain_published(config, folder, choice=choice, log=log)
    return EXIT_TOO_MANY_UNREADABLE if alarms else EXIT_DONE


def explain_published(config: ScoreConfig, folder: RunFolder, *, choice: Choice, log: RunLog) -> None:
    """Writes the maps of a published run that are missing, and says how many; a second try writes none twice."""
    # A driver that explains nothing needs no torch, which takes two seconds to import.
    from jobs.explanation.run_maps import MapsRequest, explain_run

    print(f"run {config.run_id}: explaining {config.explain}", flush=True)
    request = MapsRequest(config.results, config.run_id, config.detectors, choice, config.scoring.max_pixels)
    with hold_lease(folder.lease) as lease:
        outcome = explain_run(request, confirm=lease.confirm)
    storage.delete_tree(folder.staging)
    print(describe_maps(outcome, config.results, config.run_id), flush=True)
    counts = {"explained": outcome.explained, "known": outcome.known, "not_explained": len(outcome.problems)}
    log.event("explained", counts | {"left_out": outcome.left_out})


def ensure_published(config: ScoreConfig, folder: RunFolder, *, log: RunLog, pipeline: Pipeline) -> dict[str, Any]:
    """Returns the record of the run, which is published if it was not yet; its staging is gone afterwards."""
    record = read_record(folder)
    if record is not None:
        check_same_run(config, record["config"])
        print(f"run {config.run_id} is already published: nothing to do")
    else:
        check_folders(config)
        with hold_lease(folder.lease) as lease:
            record = read_record(folder)  # another process may have published while we waited
            if record is None:
                record = run_all_steps(config, folder, lease=lease, log=log, pipeline=pipeline)
    storage.delete_tree(folder.staging)
    return record


def run_all_steps(
    config: ScoreConfig, folder: RunFolder, *, lease: Lease, log: RunLog, pipeline: Pipeline
) -> dict[str, Any]:
    """Prepares, scores and commits one run, slice after slice; returns its record, whose writing says it is done."""
    if config.local:
        check_device(config.scoring)
    removed = remove_abandoned_staging(config.results, but=config.run_id)
    staged = prepare_run(config, folder)
    log.event(
        "prepared",
        {
            "removed_staging": removed,
            "listed": staged.listed,
            "to_score": staged.to_score,
            "started_at": staged.started_at,
        },
    )
    timings_s, reported = {"listing": staged.listing_s, "ordering": staged.ordering_s}, Reported()
    lease.confirm()  # listing a large archive takes minutes
    committer = SliceCommitter(folder, staged, lease=lease, log=log)
    committer.note_progress()
    if rivals := list_rivals(config):
        print(describe_rivals(rivals), file=sys.stderr, flush=True)
    if committer.left:
        print(f"run {config.run_id}: {staged.to_score} of {staged.listed} photos to score", flush=True)
        if config.local:
            pipeline_s, reported = score_in_process(config, folder, staged=staged, committer=committer)
        else:
            pipeline_s, reported = score_into_staging(
                config, folder, staged=staged, lease=lease, pipeline=pipeline, committer=committer
            )
        timings_s |= pipeline_s
        log.event("scored", {"rows": reported.units, "images_per_s": reported.steady_per_s, "seconds": pipeline_s})
    committer.commit_rest()
    record = make_record(
        Published(
            tally_run(config.results, config.run_id),
            slices=len(committer.slices),
            dropped=committer.dropped,
            rescored=staged.rescored,
        ),
        plan=staged.plan,
        config=staged.config,
        listed=staged.listed,
        started_at=staged.started_at,
        timings_s=timings_s | {"publishing": committer.seconds},
        reported=reported,
    )
    lease.confirm()
    remove_orphans(config.results, run_id=config.run_id)
    write_record(record, folder)
    log.event("published", {name: record[name] for name in ("slices", "counts", "errors", "anomalies", "measures")})
    return record


def score_in_process(
    config: ScoreConfig, folder: RunFolder, *, staged: StagedRun, committer: SliceCommitter
) -> tuple[dict[str, float], Reported]:
    """Scores and commits without Ray; returns timings in seconds, and what was done."""
    began = time.monotonic()
    scorer = LocalScorer(sum(part.rows for part in committer.left), plan=staged.plan, resources=config.scoring)
    score_slices(committer, folder, scorer=scorer)
    return {"scoring": time.monotonic() - began}, scorer.reported


def score_into_staging(
    config: ScoreConfig,
    folder: RunFolder,
    *,
    staged: StagedRun,
    lease: Lease,
    pipeline: Pipeline,
    committer: SliceCommitter,
) -> tuple[dict[str, float], Reported]:
    """Runs the pipeline into staging, with Ray Data's checkpoint; slices that are complete are committed meanwhile.

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
            dataset = pipeline(manifest, rows=rows, plan=plan, resources=resources, report=progress.report)
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
