"""The main job: list, leave out what is known, score with Ray Data into staging, commit slice after slice."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from jobs import storage
from jobs.cluster.run_log import RunLog, log_as_json
from jobs.cluster.tally import Reported
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE
from jobs.explanation.choice import Choice, parse_choice
from jobs.explanation.outcome import describe_maps
from jobs.results.known import stream_rows
from jobs.results.orphans import remove_orphans
from jobs.scoring.config import ScoreConfig
from jobs.scoring.local import LocalScorer, check_device, score_slices
from jobs.scoring.preparation import StagedRun, check_folders, check_same_run, choose_local, prepare_run
from jobs.scoring.publication.abandoned import remove_abandoned_staging
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.publication.rivals import describe_rivals, list_rivals
from jobs.scoring.publication.tally import tally_run
from jobs.scoring.record import Published, count_fetched, make_record, read_record, write_record
from jobs.scoring.run_folder import RunFolder
from jobs.scoring.summary import COLUMNS, list_alarms, summarize_run
from jobs.storage.lease import Lease, hold_lease

if TYPE_CHECKING:
    from jobs.scoring.staging import Pipeline


def score_archive(config: ScoreConfig, *, pipeline: Pipeline | None = None) -> int:
    """Scores what is new in the archive, publishes it, says what was found and returns the exit code.

    Args:
        config: the request.
        pipeline: what turns objects into rows on a cluster, in place of `jobs.scoring.pipeline.score_photos`; another
            one is for measuring all that stands around it.
    """
    if pipeline is not None:
        config = config.model_copy(update={"local": False})
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


def ensure_published(
    config: ScoreConfig, folder: RunFolder, *, log: RunLog, pipeline: Pipeline | None
) -> dict[str, Any]:
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
    config: ScoreConfig, folder: RunFolder, *, lease: Lease, log: RunLog, pipeline: Pipeline | None
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
        pipeline_s, reported = score_left(
            config, folder, staged=staged, lease=lease, committer=committer, pipeline=pipeline
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


def score_left(
    config: ScoreConfig,
    folder: RunFolder,
    *,
    staged: StagedRun,
    lease: Lease,
    committer: SliceCommitter,
    pipeline: Pipeline | None,
) -> tuple[dict[str, float], Reported]:
    """Scores what is not committed yet, here or on a cluster; returns timings in seconds, and what was done."""
    is_local = choose_local(config, staged.plan, staged.to_score)
    where = " in this process" if is_local else ""
    print(f"run {config.run_id}: {staged.to_score} of {staged.listed} photos to score{where}", flush=True)
    if is_local:
        return score_in_process(config, folder, staged=staged, committer=committer)
    # 1 s of CPU for Ray Data, which a run in this process does not need.
    from jobs.scoring.staging import score_into_staging

    return score_into_staging(config, folder, staged=staged, lease=lease, committer=committer, pipeline=pipeline)


def score_in_process(
    config: ScoreConfig, folder: RunFolder, *, staged: StagedRun, committer: SliceCommitter
) -> tuple[dict[str, float], Reported]:
    """Scores and commits without Ray; returns timings in seconds, and what was done."""
    began, began_wall = time.monotonic(), time.time()
    scorer = LocalScorer(sum(part.rows for part in committer.left), plan=staged.plan, resources=config.scoring)
    score_slices(committer, folder, scorer=scorer)
    timings_s = {"scoring": time.monotonic() - began}
    if scorer.reported.first_at:
        timings_s["to_first_batch"] = scorer.reported.first_at - began_wall
    return timings_s, scorer.reported
