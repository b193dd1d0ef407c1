"""Evaluation as a job: score labelled photos, AUROC per category and their mean."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from jobs import storage
from jobs.config import EvaluateConfig
from jobs.errors import EXIT_DONE, JobError, RequestError
from jobs.manifest import list_archive
from jobs.pipeline import as_table, cause, scored, start_ray
from jobs.plan import ScoringPlan, plan_detectors
from jobs.progress import Progress
from jobs.publish import versions
from jobs.schema import STAGED, Status
from model.evaluation import auroc

_LABELLED = r"(?P<category>[^/]+)/test/(?P<site>[^/]+)/"
"""The label stands where the archive has its site, so that it travels with the row."""


def run(config: EvaluateConfig) -> int:
    """Evaluates every category of the data that has a detector; prints the figures and returns the exit code."""
    manifest = _labelled_photos(config)
    plan = _plan(config, manifest)
    start_ray()
    try:
        with Progress(len(manifest), verb="evaluating") as progress:
            photos = ray.data.from_arrow(manifest)
            rows = as_table(scored(photos, plan=plan, resources=config.scoring, report=progress.report), schema=STAGED)
    except ray.exceptions.RayError as error:
        raise JobError(f"evaluation stopped: {cause(error)}") from error
    figures = [_category(rows, category, plan) for category in sorted(plan.by_category)]
    _print(figures)
    if config.output:
        report = {"data": config.data, "alias": config.alias, "categories": figures, "versions": versions()}
        storage.write(config.output, json.dumps(report, indent=2).encode())
    return EXIT_DONE


def _labelled_photos(config: EvaluateConfig) -> pa.Table:
    listing = list_archive(config.data, key_pattern=_LABELLED)
    wanted = set(config.categories) or {name for name in listing["category"].to_pylist() if name}
    absent = wanted - set(listing["category"].to_pylist())
    if absent or not wanted:
        what = ", ".join(sorted(absent)) or "any category"
        raise RequestError(f"{config.data} has no test photos of {what}: expected <category>/test/<label>/<photo>")
    keep = [name in wanted for name in listing["category"].to_pylist()]
    return listing.filter(pa.array(keep))


def _plan(config: EvaluateConfig, manifest: pa.Table) -> ScoringPlan:
    categories = set(manifest["category"].to_pylist())
    return ScoringPlan(
        run_id="evaluate",
        detectors=config.detectors,
        by_category=plan_detectors(config.detectors, categories, alias=config.alias, false_alarm_rate=0.05),
        max_pixels=config.scoring.max_pixels,
        fetch_concurrency=config.scoring.fetch_concurrency,
        detector_cache=config.scoring.detector_cache,
    )


def _category(rows: pa.Table, category: str, plan: ScoringPlan) -> dict[str, Any]:
    """Figures of one category; its AUROC is null, with the reason, where it cannot be computed."""
    mine = [row for row in rows.to_pylist() if row["category"] == category]
    usable = [row for row in mine if row["status"] == Status.SCORED]
    labels = np.array([row["site"] != "good" for row in usable], bool)
    scores = np.array([row["score"] for row in usable], float)
    detector = plan.by_category[category]
    figures: dict[str, Any] = {
        "category": category,
        "detector_id": detector.detector_id,
        "variant": detector.variant,
        "views": detector.views,
        "flawless": int((~labels).sum()),
        "defective": int(labels.sum()),
        "not_scored": dict(Counter(row["error"] for row in mine if row["status"] != Status.SCORED)),
    }
    try:
        return figures | {"auroc": auroc(labels, scores), "reason": None}
    except ValueError as error:
        return figures | {"auroc": None, "reason": str(error)}


def _print(figures: Sequence[dict[str, Any]]) -> None:
    print(f"{'category':24} {'variant':24} {'flawless':>8} {'defective':>9} {'AUROC %':>8}")
    for row in figures:
        value = f"{100 * row['auroc']:8.2f}" if row["auroc"] is not None else f"  {row['reason']}"
        print(f"{row['category']:24} {row['variant']:24} {row['flawless']:8} {row['defective']:9} {value}")
        for reason, count in row["not_scored"].items():
            print(f"  left out: {count} {reason}")
    known = [row["auroc"] for row in figures if row["auroc"] is not None]
    if known:
        print(f"{'mean':24} {'':24} {'':8} {'':9} {100 * sum(known) / len(known):8.2f}")
