"""What a scoring run does before any cluster work: list, resolve detectors, leave out what is known, keep the rest."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from jobs import storage
from jobs.archive.kinds import ArchiveKind, detect_kind, is_live_listing
from jobs.archive.manifest import fill_ordering
from jobs.archive.ordering import Ordering
from jobs.archive.selection import Selection
from jobs.archive.settled import KNOWN, DetectorIds, RetryPolicy
from jobs.cluster.connection import is_cluster_named
from jobs.config import list_changed
from jobs.detectors.promotions import check_promotions
from jobs.detectors.registry import list_categories
from jobs.errors import MissingObjectError, RequestError
from jobs.results.commit import find_next_slice
from jobs.results.known import stream_known
from jobs.results.runs import describe_future_rows
from jobs.scoring.config import RAY_ONLY, ScoreConfig
from jobs.scoring.plan import ScoringPlan, plan_detectors, use_precisions
from jobs.scoring.publication.deletions import check_whole_listing, mark_deleted
from jobs.scoring.rescoring import list_few_photos, rescore_stored
from jobs.scoring.run_folder import MANIFEST_GROUP_ROWS, MANIFEST_PART_ROWS, RunFolder
from jobs.tables.files import regroup_batches
from jobs.tables.parquet import write_parquet
from jobs.tables.scratch import Scratch
from model.processor import count_cores

SLICE_PHOTOS = 32_768
"""Photos of a slice: 20 to 30 minutes of a cluster that scores 20 to 30 a second."""
LOCAL_SLICE_PHOTOS = 4096
"""The same without a cluster."""
LOCAL_CORES = 2
"""Processes that decode and one that scores keep as many cores busy."""
LOCAL_VIEWS = {True: 2000, False: 500}
"""Most views of 224 px, 5 to 25 ms each, that a run scores in its own process: on a machine of up to LOCAL_CORES, and
on others, which catch up with it sooner once their Ray has started."""
LIGHT_VIEWS = 2.0
"""Views of 224 px of a photo up to which decoding is half of the work or more. On up to LOCAL_CORES a Ray then has
nothing to win, however many photos there are."""
_VIEW_PX = 224
_MAY_CHANGE = (
    "scoring",
    "local",
    "top",
    "report",
    "explain",
    "fail_on_drift",
    "max_error_rate",
    "max_missing_rate",
    "max_no_detector_rate",
    "min_alarm_rows",
    "log_format",
)
"""Fields that a rerun of the same run id may change: they decide how, not what."""
_DECISIVE_SCORING = ("precision", "max_pixels")
"""Fields of ``scoring`` that decide what comes out, so that the plan has them; a rerun obeys the others."""


class StagedRun(BaseModel):
    """What staging keeps so that a rerun continues the same run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]
    plan: ScoringPlan
    listed: int
    to_score: int
    rescored: int
    """Photos that got a new row from their stored score."""
    started_at: datetime
    known_since: int
    """Version of the table that the manifest was made with; -1 where there was no table. Required, so that a run
    staged by a version without such tables is refused, not continued."""
    slice_photos: int
    first_slice: int = 0
    """Commits that the run id had when this was staged: of a try whose staging is gone."""
    has_boxes: bool = False
    """Whether rows may be parts of one photo."""
    listing_s: float
    """Listing an archive, or reading its inventory or list."""
    ordering_s: float
    """Leaving out what is known, sorting, and writing the manifest."""


def prepare_run(config: ScoreConfig, folder: RunFolder) -> StagedRun:
    """Takes up what an earlier try has staged for this run, else lists the archive and stages what is to score."""
    return resume_run(config, folder) or stage_run(config, folder)


def choose_local(config: ScoreConfig, plan: ScoringPlan, photos: int) -> bool:
    """Decides whether a run scores in its own process, without Ray: as asked, else where a Ray would start for little.

    Args:
        config: the request.
        plan: its detectors, of which the one with the most to do counts.
        photos: to be scored.
    """
    if config.local is not None:
        return config.local
    resources = config.scoring
    # What --local refuses, for it would not be read.
    is_sized = resources.use_gpu or any(list_changed(config, name) for name in RAY_ONLY)
    views = max(one.vectors * (one.image_size / _VIEW_PX) ** 2 for one in plan.by_category.values())
    has_few_cores = count_cores() <= LOCAL_CORES
    is_small = photos * views <= LOCAL_VIEWS[has_few_cores] or (has_few_cores and views <= LIGHT_VIEWS)
    return is_small and not is_sized and not is_cluster_named()


def check_same_run(config: ScoreConfig, earlier: Mapping[str, Any]) -> None:
    """Compares a request with that of an earlier try of the same run id.

    Raises:
        RequestError: they differ in what is to be scored.
    """
    then, now = list_decisive_fields(earlier), list_decisive_fields(config.model_dump(mode="json"))
    changed = [name for name in now if now[name] != then[name]]
    if changed:
        was = ", ".join(f"{name} was {then[name]!r} and is now {now[name]!r}" for name in changed)
        raise RequestError(f"run id {config.run_id} belongs to another request ({was}): take a new --run-id")


def list_decisive_fields(request: Mapping[str, Any]) -> dict[str, Any]:
    """Lists the fields of a request that decide what is scored and what comes out, by their dotted names.

    A field that a request of an earlier version does not have counts with its default.
    """
    fields = ScoreConfig.model_fields.items()
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}
    scoring = defaults.pop("scoring").model_dump(mode="json") | request.get("scoring", {})
    kept = {name: value for name, value in (defaults | dict(request)).items() if name not in _MAY_CHANGE}
    return kept | {f"scoring.{name}": scoring[name] for name in _DECISIVE_SCORING}


def resume_run(config: ScoreConfig, folder: RunFolder) -> StagedRun | None:
    """Reads what an earlier try has staged; None where there is none.

    Raises:
        RequestError: the plan is damaged, or belongs to another request.
    """
    try:
        staged = StagedRun.model_validate_json(storage.read(folder.plan))
    except MissingObjectError:
        return None
    except ValueError as error:
        raise RequestError(
            f"{folder.plan} is damaged, or of another version: delete the folder, or take a new --run-id"
        ) from error
    check_same_run(config, staged.config)
    print(f"run {config.run_id}: continuing where an earlier try stopped", flush=True)
    return staged


def stage_run(config: ScoreConfig, folder: RunFolder) -> StagedRun:
    """Lists the archive, leaves out what the table has, writes the manifest in parts and then the plan."""
    began, started_at = time.monotonic(), datetime.now(UTC)
    check_whole_listing(config)
    storage.delete_tree(folder.manifest)  # parts of a try that did not come to its plan
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        count = fill_ordering(
            ordering,
            config.archive,
            key_pattern=config.key_pattern,
            selection=Selection(config.include, config.exclude, own_folders=list_own_folders(config)),
            category=config.category,
            boxes=config.boxes,
        )
        listing_s = time.monotonic() - began
        plan = plan_run(config, ordering.list_categories())
        known_since, rescored = leave_out_settled(config, scratch, ordering, plan=plan, run_date=started_at.date())
        if config.mark_deleted:
            deleted = mark_deleted(scratch, config, version=known_since, listed_at=started_at)
            print(f"run {config.run_id}: {deleted} photos are marked as deleted", flush=True)
        has_boxes = ordering.has_boxes()
        to_score = write_manifest(ordering.stream_rows(), folder)
    is_local = choose_local(config, plan, to_score)
    if to_score:
        plan = use_precisions(plan, asked=config.scoring.precision, resources=config.scoring, local=is_local)
    staged = StagedRun(
        config=config.model_dump(mode="json"),
        plan=plan,
        listed=count,
        to_score=to_score,
        rescored=rescored,
        started_at=started_at,
        known_since=known_since,
        first_slice=find_next_slice(folder.results, folder.run_id),
        slice_photos=config.slice_photos or (LOCAL_SLICE_PHOTOS if is_local else SLICE_PHOTOS),
        has_boxes=has_boxes,
        listing_s=listing_s,
        ordering_s=time.monotonic() - began - listing_s,
    )
    # The plan comes last: a rerun that finds it can trust the manifest beside it.
    storage.write(folder.plan, staged.model_dump_json().encode())
    return staged


def leave_out_settled(
    config: ScoreConfig, scratch: Scratch, ordering: Ordering, *, plan: ScoringPlan, run_date: date
) -> tuple[int, int]:
    """Leaves out what the table has of the listed photos; some get new rows from their stored scores.

    Returns:
        Version of the table that was looked at, -1 where there is none, and the photos that got a new row.
    """
    known_since, known = stream_known(config.results, KNOWN.names, photos=list_few_photos(scratch, "listed"))
    if said := describe_future_rows(config.results):
        print(said, file=sys.stderr, flush=True)
    if config.rescore:
        return known_since, 0
    ordering.drop_settled(
        known,
        {
            name: DetectorIds(one.detector_id, one.weights_id, one.false_alarm_rate, one.confidence, one.promoted_at)
            for name, one in plan.by_category.items()
        },
        retries=RetryPolicy(config.max_attempts, config.retry_hours),
        is_live=is_live_listing(config.archive, config.boxes),
    )
    rescored = rescore_stored(scratch, plan, results=config.results, version=known_since, run_date=run_date)
    if rescored:
        print(f"run {config.run_id}: {rescored} photos get new p-values from their stored scores", flush=True)
    return known_since, rescored


def plan_run(config: ScoreConfig, categories: set[str]) -> ScoringPlan:
    """Decides which detector scores each of the archive's categories; see `plan_detectors` for errors.

    Raises:
        RequestError: the registry is signed, and an alias is older than an earlier run has read it.
    """
    by_category = plan_detectors(
        config.detectors,
        categories,
        alias=config.alias,
        false_alarm_rate=config.false_alarm_rate,
        confidence=config.confidence,
        precision=config.scoring.precision,
    )
    promoted = {name: detector.promoted_at for name, detector in by_category.items() if detector.promoted_at}
    check_promotions(config.results, detectors=config.detectors, alias=config.alias, promoted=promoted)
    return ScoringPlan(
        run_id=config.run_id,
        detectors=config.detectors,
        by_category=by_category,
        max_pixels=config.scoring.max_pixels,
        root=config.archive if detect_kind(config.archive) is ArchiveKind.PREFIX else None,
    )


def write_manifest(rows: Iterable[pa.RecordBatch], folder: RunFolder) -> int:
    """Writes MANIFEST rows in parts of ``MANIFEST_PART_ROWS``; returns how many there are."""
    written = 0
    for number, table in enumerate(regroup_batches(rows, size_rows=MANIFEST_PART_ROWS)):
        write_parquet(table, folder.manifest_part(number), row_group_rows=MANIFEST_GROUP_ROWS)
        written += len(table)
    return written


def list_own_folders(config: ScoreConfig) -> list[str]:
    """Lists the folders below the archive that hold results and detectors, as where the archive is a whole bucket."""
    return [folder for folder in (config.results, config.detectors) if folder.startswith(f"{config.archive}/")]


def check_folders(config: ScoreConfig) -> None:
    """Checks that results have a folder to themselves.

    Raises:
        RequestError: it is that of the photos, whose next listing would show them, or that of the detectors.
    """
    taken = None
    if config.results == config.archive:
        taken = "--archive, the photos"
    elif config.results == config.detectors and list_categories(config.detectors):
        taken = "--detectors, a registry of detectors"
    if taken is not None:
        raise RequestError(
            f"--results {config.results} is the folder of {taken}: give results one of their own, such as "
            f"{config.results}/results"
        )
