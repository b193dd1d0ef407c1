"""The winner as a configuration that `jobs.train` takes, and its way to work: promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from jobs import storage
from jobs.detectors import registry
from jobs.detectors.aliases import NO_DETECTOR, is_rolled_back
from jobs.detectors.node_cache import hold_detector
from jobs.evaluation.metrics import compare_with_reference, measure_detectors, summarize_variants
from jobs.storage import uris
from jobs.tables.schema import Status
from model.artifact import load_artifact
from model.config import DetectorConfig
from model.image import ImageError, decode_image
from model.inference.detector import build_scorer
from tuning.choice.final import TUNED
from tuning.choice.finalists import Finalist
from tuning.config import SearchConfig

WINNER = "winner.yaml"
CURRENT = "current"
"""Name of the detector behind the alias, in comparisons."""


def save_winner(config: SearchConfig, winner: Finalist) -> str:
    """Writes the winner as YAML that ``python -m jobs.train --config`` takes; returns a line for a person."""
    record = winner.record
    uri = uris.join(config.results, WINNER)
    storage.write(uri, format_winner(config, winner).encode())
    values = ", ".join(f"{value:.4f}" for value in winner.values)
    said = f"winner: trial {record.number} ({record.name}), validation over new seeds {values}"
    return f"{said}; python -m jobs.train --config {uri}"


def format_winner(config: SearchConfig, winner: Finalist) -> str:
    """Formats the winner as YAML: a whole TrainConfig."""
    detector = DetectorConfig.model_validate({**winner.record.detector, "variant": TUNED, "seed": 0})
    request = {
        "data": config.data,
        "category": config.category,
        "detectors": config.registry,
        "variant": "differnet",  # all fields stand below, so the preset changes nothing
        "alias": None,
        "include": config.include,
        "exclude": config.exclude,
        "group_by": config.group_by,
        "key_pattern": config.key_pattern,
        "seeds": config.seeds,
        "calibration_fraction": config.calibration_fraction,
        "optimizer": winner.record.optimizer,
        "detector": detector.model_dump(mode="json"),
    }
    head = (
        f"# Trial {winner.record.number} of the search in {config.results}.\n"
        "# python -m jobs.train --config FILE; set alias to champion to put it to work.\n"
    )
    return head + yaml.safe_dump(request, sort_keys=False)


def promote_winner(
    config: SearchConfig, outcomes: Sequence[Mapping[str, Any]], rows: pa.Table, manifest: pa.Table
) -> str:
    """Moves the alias to the winner if it is better by more than the interval; returns what happened and why.

    The bar is the detector behind the alias, scored on the test photos now, and where there is none the best preset.
    Of the winner's seeds the one of the best held-out likelihood is taken, never the one of the best test metric.

    Args:
        config: of the search.
        outcomes: of the final comparison.
        rows: EVALUATED rows of it.
        manifest: MANIFEST rows of the test photos.
    """
    current = registry.resolve(config.registry, config.category, alias=config.alias)
    bar = CURRENT
    if current is None:
        bar = find_best_preset(rows)
    else:
        rows = pa.concat_tables([rows, score_current(config, current.detector_id, manifest, schema=rows.schema)])
    (found,) = compare_with_reference(rows, variants=[TUNED], reference=bar)
    if found.low is None or found.high is None or found.mean is None:
        return f"{config.alias} of {config.category} stays what it is: nothing to compare the winner with"
    said = (
        f"{100 * found.mean:+.2f} points of AUROC against {bar} (95 % {100 * found.low:+.2f}..{100 * found.high:+.2f})"
    )
    if found.low <= 0:
        return (
            f"{config.alias} of {config.category} stays what it is: the winner has {said}, not more than the interval"
        )
    winners = [one for one in outcomes if one["name"] == TUNED and "failed" not in one]
    chosen = max(winners, key=lambda one: one["metrics"]["held_out_gain"])
    new, before = chosen["detector_id"], current.detector_id if current else NO_DETECTOR
    if is_rolled_back(config.registry, config.category, alias=config.alias, detector_id=new):
        return (
            f"{config.alias} of {config.category} stays {before}: the winner {new} was there and has been rolled back; "
            "jobs.registry promote puts it there again"
        )
    registry.set_alias(
        config.registry,
        config.category,
        alias=config.alias,
        detector_id=new,
        reason=f"search: {said}",
        expected=before,
    )
    return f"{config.alias} of {config.category}: {before} -> {new}, {said}"


def find_best_preset(rows: pa.Table) -> str:
    """Finds the preset of the highest mean AUROC on the test photos, which flatters it: the bar, not a proposal."""
    presets = sorted({str(name) for name in rows["variant"].to_pylist()} - {TUNED})
    summaries = summarize_variants(measure_detectors(rows), variants=presets)
    return max(summaries, key=lambda one: one.mean["auroc"].mean).variant


def score_current(config: SearchConfig, detector_id: str, manifest: pa.Table, *, schema: pa.Schema) -> pa.Table:
    """Scores a registered detector here, in the driver; returns EVALUATED rows whose seed None means every seed."""
    with hold_detector(config.registry, config.category, detector_id=detector_id) as folder:
        detector = load_artifact(folder).detector
    scorer = build_scorer(detector)
    found = []
    for row in manifest.to_pylist():
        score, error = None, None
        try:
            image = decode_image(
                storage.read(row["image_uri"]),
                size=detector.config.image_size,
                max_pixels=config.max_pixels,
                **detector.config.pixel_rules._asdict(),
            )
            score = float(np.asarray(scorer.score(image[None]))[0])
        except ImageError as problem:
            error = f"{problem.code}: {problem.detail}"
        found.append(
            {
                "category": config.category,
                "label": row["label"],
                "variant": CURRENT,
                "detector_id": detector_id,
                "image_uri": row["image_uri"],
                "status": Status.UNREADABLE if error else Status.SCORED,
                "error": error,
                "score": score,
            }
        )
    return pa.Table.from_pylist(found, schema=schema)
