"""The main job: list, drop what is known, score with Ray Data into staging, publish."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa
import ray

from jobs import storage
from jobs.cluster.progress import Progress, Report, Reported, counted
from jobs.cluster.run_log import RunLog, log_as_json
from jobs.cluster.session import cause, start_ray
from jobs.config import ScoringResources
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, JobError
from jobs.scoring import publish
from jobs.scoring.config import ScoreConfig
from jobs.scoring.pipeline import read_manifest, scored, staged_file_rows
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.preparation import PART_ROWS, Staged, check_same_run, manifest_folder, part_uri, prepared
from jobs.scoring.record import read_record, run_record, staging, write_record
from jobs.scoring.summary import COLUMNS, summary
from jobs.storage import uris
from jobs.storage.lease import Lease, held
from jobs.tables.parquet import scan
from jobs.tables.schema import MANIFEST, SCORES, STAGED


class Pipeline(Protocol):
    """MANIFEST rows to STAGED rows, see `jobs.scoring.pipeline.scored`."""

    def __call__(
        self, manifest: ray.data.Dataset, *, rows: int, plan: ScoringPlan, resources: ScoringResources, report: Report
    ) -> ray.data.Dataset:
        """Nothing runs until the dataset is consumed."""


def run(config: ScoreConfig, *, pipeline: Pipeline = scored) -> int:
    """Scores what is new in the archive, publishes it, says what was found and returns the exit code.

    Args:
        config: the request.
        pipeline: what turns objects into rows; another one is for measuring all that stands around it.
    """
    log = RunLog(config.run_id)
    if config.log_format == "json":
        log_as_json()
    log.event("run_started", {"archive": config.archive, "results": config.results})
    try:
        record = _record(config, log, pipeline)
    except BaseException as error:
        log.event("run_stopped", {"error": f"{type(error).__name__}: {error}"})
        raise
    files = [uris.join(config.results, name) for name in record["files"]]
    rows = scan(files, columns=COLUMNS, schema=SCORES)
    print(summary(record, rows, results=config.results, top=config.top))
    return EXIT_TOO_MANY_UNREADABLE if record["error_rate"] > config.max_error_rate else EXIT_DONE


def _record(config: ScoreConfig, log: RunLog, pipeline: Pipeline) -> dict[str, Any]:
    """The record of the run, which is published if it was not yet; its staging is gone afterwards."""
    record = read_record(config.results, config.run_id)
    if record is not None:
        check_same_run(config, record["config"])
        print(f"run {config.run_id} is already published: nothing to do")
    else:
        with held(uris.join(staging(config.results, config.run_id), "lease.json")) as lease:
            record = read_record(config.results, config.run_id) or _run(config, lease, log, pipeline)
    storage.delete_tree(staging(config.results, config.run_id))
    return record


def _run(config: ScoreConfig, lease: Lease, log: RunLog, pipeline: Pipeline) -> dict[str, Any]:
    staged = prepared(config)
    log.event("prepared", {"listed": staged.listed, "to_score": staged.to_score, "started_at": staged.started_at})
    timings_s, reported = {"listing": staged.listing_s, "ordering": staged.ordering_s}, Reported()
    if staged.to_score:
        print(f"run {config.run_id}: {staged.to_score} of {staged.listed} photos to score", flush=True)
        pipeline_s, reported = _score(config, staged, pipeline)
        timings_s |= pipeline_s
        log.event("scored", {"rows": reported.units, "images_per_s": reported.steady_per_s, "seconds": pipeline_s})
    lease.confirm()
    began = time.monotonic()
    published = publish.publish(
        counted(_staged_rows(config), verb="publishing", total=staged.to_score),
        manifest=lambda: _manifest_rows(config, staged),
        rows=staged.to_score,
        plan=staged.plan,
        results=config.results,
        run_date=staged.started_at.date().isoformat(),
    )
    record = run_record(
        published,
        plan=staged.plan,
        config=staged.config,
        listed=staged.listed,
        started_at=staged.started_at,
        timings_s=timings_s | {"publishing": time.monotonic() - began},
        reported=reported,
    )
    lease.confirm()
    write_record(record, results=config.results)
    log.event("published", {name: record[name] for name in ("files", "counts", "errors", "anomalies", "measures")})
    return record


def _staged_rows(config: ScoreConfig) -> Iterator[pa.RecordBatch]:
    files = publish.staged_files(config.results, config.run_id)
    return scan(files, columns=STAGED.names, schema=STAGED, small=True)


def _manifest_rows(config: ScoreConfig, staged: Staged) -> Iterator[pa.RecordBatch]:
    folder = manifest_folder(config.results, config.run_id)
    parts = [part_uri(folder, number) for number in range(math.ceil(staged.to_score / PART_ROWS))]
    return scan(parts, columns=MANIFEST.names, schema=MANIFEST)


def _score(config: ScoreConfig, staged: Staged, pipeline: Pipeline) -> tuple[dict[str, float], Reported]:
    """Runs the pipeline into staging, with Ray Data's checkpoint.

    Returns:
        Timings in seconds, and what the stages have reported.
    """
    began = time.monotonic()
    start_ray()
    ray_s = time.monotonic() - began
    folder = staging(config.results, config.run_id)
    filesystem, rows_path = storage.arrow_filesystem(uris.join(folder, "rows"))
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = ray.data.checkpoint.CheckpointConfig(
        id_column="image_id",
        checkpoint_path=storage.arrow_filesystem(uris.join(folder, "checkpoint"))[1],
        delete_checkpoint_on_success=False,
        override_filesystem=filesystem,
    )
    try:
        with Progress(staged.to_score, verb="scoring") as progress:
            manifest = read_manifest(
                storage.arrow_filesystem(manifest_folder(config.results, config.run_id))[1],
                filesystem=filesystem,
                rows=staged.to_score,
                plan=staged.plan,
                resources=config.scoring,
            )
            dataset = pipeline(
                manifest, rows=staged.to_score, plan=staged.plan, resources=config.scoring, report=progress.report
            )
            started_wall = time.time()
            dataset.write_parquet(rows_path, filesystem=filesystem, min_rows_per_file=staged_file_rows(staged.to_score))
    except ray.exceptions.RayError as error:
        raise JobError(f"scoring stopped: {cause(error)}; the same command continues where it stopped") from error
    finally:
        context.checkpoint_config = None
    reported = progress.reported
    timings_s = {"ray_start": ray_s, "scoring": time.monotonic() - began - ray_s}
    if reported.first_at:
        timings_s["to_first_batch"] = reported.first_at - started_wall
    return timings_s, reported
