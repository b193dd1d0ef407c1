"""The main job: list, drop what is known, score with Ray Data into staging, publish."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict

from jobs import publish, storage, uris
from jobs.config import ScoreConfig
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, JobError, MissingObjectError, RequestError
from jobs.lease import Lease, held
from jobs.manifest import list_archive, unscored, write_parquet
from jobs.pipeline import cause, read_manifest, scored, start_ray
from jobs.plan import ScoringPlan, plan_detectors
from jobs.progress import Progress, Reported
from jobs.schema import MANIFEST, SCORES
from jobs.summary import summary

_EARLIER = ["image_uri", "image_etag", "detector_id", "status", "error"]
_MAY_CHANGE = ("scoring", "top", "max_error_rate")
"""Fields that a rerun of the same run id may change: they decide how, not what."""


class _Staged(BaseModel):
    """What staging keeps so that a rerun continues the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]
    plan: ScoringPlan
    listed: int
    to_score: int
    started_at: datetime
    listing_s: float


def run(config: ScoreConfig) -> int:
    """Scores what is new in the archive, publishes it, says what was found and returns the exit code."""
    record = publish.read_record(config.results, config.run_id)
    if record is not None:
        _same_run(config, record["config"])
        print(f"run {config.run_id} is already published: nothing to do")
    else:
        with held(uris.join(publish.staging(config.results, config.run_id), "lease.json")) as lease:
            record = publish.read_record(config.results, config.run_id) or _run(config, lease)
    storage.delete_tree(publish.staging(config.results, config.run_id))
    rows = publish.read_tables(
        [uris.join(config.results, name) for name in record["files"]], columns=SCORES.names, schema=SCORES
    )
    print(summary(record, rows, results=config.results, top=config.top))
    return EXIT_TOO_MANY_UNREADABLE if record["error_rate"] > config.max_error_rate else EXIT_DONE


def _run(config: ScoreConfig, lease: Lease) -> dict[str, Any]:
    staged = _resume(config) or _prepare(config)
    folder = publish.staging(config.results, config.run_id)
    manifest_uri = uris.join(folder, "manifest.parquet")
    timings_s, reported = {"listing": staged.listing_s}, Reported()
    if staged.to_score:
        print(f"run {config.run_id}: {staged.to_score} of {staged.listed} photos to score", flush=True)
        pipeline_s, reported = _score(config, staged, manifest_uri=manifest_uri)
        timings_s |= pipeline_s
    lease.confirm()
    began = time.monotonic()
    manifest = publish.read_tables([manifest_uri], columns=MANIFEST.names, schema=MANIFEST)
    rows, files = publish.publish(
        publish.staged_table(config.results, config.run_id),
        manifest=manifest,
        plan=staged.plan,
        results=config.results,
        run_date=staged.started_at.date().isoformat(),
    )
    record = publish.run_record(
        rows,
        plan=staged.plan,
        config=staged.config,
        files=files,
        listed=staged.listed,
        started_at=staged.started_at,
        timings_s=timings_s | {"publishing": time.monotonic() - began},
        reported=reported,
    )
    lease.confirm()
    publish.write_record(record, results=config.results)
    return record


def _same_run(config: ScoreConfig, earlier: Mapping[str, Any]) -> None:
    now = config.model_dump(mode="json")
    changed = [name for name in now if name not in _MAY_CHANGE and now[name] != earlier.get(name, now[name])]
    if changed:
        was = ", ".join(f"{name} was {earlier[name]!r} and is now {now[name]!r}" for name in changed)
        raise RequestError(f"run id {config.run_id} belongs to another request ({was}): take a new --run-id")


def _resume(config: ScoreConfig) -> _Staged | None:
    uri = uris.join(publish.staging(config.results, config.run_id), "plan.json")
    try:
        staged = _Staged.model_validate_json(storage.read(uri))
    except MissingObjectError:
        return None
    except ValueError as error:
        raise RequestError(f"{uri} is damaged: delete the folder, or take a new --run-id") from error
    _same_run(config, staged.config)
    print(f"run {config.run_id}: continuing where an earlier try stopped", flush=True)
    return staged


def _prepare(config: ScoreConfig) -> _Staged:
    """Lists, resolves detectors, drops what earlier runs have settled, and keeps all that in staging."""
    began, started_at = time.monotonic(), datetime.now(UTC)
    listing = list_archive(config.archive, key_pattern=config.key_pattern)
    planned = plan_detectors(
        config.detectors,
        {category for category in listing["category"].to_pylist() if category},
        alias=config.alias,
        false_alarm_rate=config.false_alarm_rate,
        precision=config.scoring.precision,
    )
    earlier = SCORES.empty_table() if config.rescore else publish.published_rows(config.results, _EARLIER)
    ids = {category: detector.detector_id for category, detector in planned.items()}
    manifest = unscored(listing, earlier=earlier.select(_EARLIER), detector_ids=ids)
    staged = _Staged(
        config=config.model_dump(mode="json"),
        plan=ScoringPlan(
            run_id=config.run_id,
            detectors=config.detectors,
            by_category=planned,
            max_pixels=config.scoring.max_pixels,
            precision=config.scoring.precision,
        ),
        listed=len(listing),
        to_score=len(manifest),
        started_at=started_at,
        listing_s=time.monotonic() - began,
    )
    folder = publish.staging(config.results, config.run_id)
    write_parquet(manifest, uris.join(folder, "manifest.parquet"))
    # The plan comes last: a rerun that finds it can trust the manifest beside it.
    storage.write(uris.join(folder, "plan.json"), staged.model_dump_json().encode())
    return staged


def _score(config: ScoreConfig, staged: _Staged, *, manifest_uri: str) -> tuple[dict[str, float], Reported]:
    """Runs the pipeline into staging, with Ray Data's checkpoint.

    Returns:
        Timings in seconds, and what the stages have reported.
    """
    began = time.monotonic()
    start_ray()
    ray_s = time.monotonic() - began
    folder = publish.staging(config.results, config.run_id)
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
                storage.arrow_filesystem(manifest_uri)[1],
                filesystem=filesystem,
                rows=staged.to_score,
                plan=staged.plan,
                resources=config.scoring,
            )
            dataset = scored(manifest, plan=staged.plan, resources=config.scoring, report=progress.report)
            started_wall = time.time()
            dataset.write_parquet(rows_path, filesystem=filesystem)
    except ray.exceptions.RayError as error:
        raise JobError(f"scoring stopped: {cause(error)}; the same command continues where it stopped") from error
    finally:
        context.checkpoint_config = None
    reported = progress.reported
    timings_s = {"ray_start": ray_s, "scoring": time.monotonic() - began - ray_s}
    if reported.first_at:
        timings_s["to_first_batch"] = reported.first_at - started_wall
    return timings_s, reported
