"""From EVALUATED rows to metrics: per detector, per variant over seeds, and variants against each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.mvtec import FLAWLESS
from jobs.tables.schema import METRICS, Status
from model.statistics.evaluation import compute_metrics
from model.statistics.false_alarms import Promise, measure_false_alarms
from model.statistics.resampling import (
    Interval,
    PairedScores,
    bootstrap_auroc,
    bootstrap_difference,
    estimate_seed_interval,
)

METRIC_NAMES = ("auroc", "aupr", "recall_at_1_percent", "recall_at_5_percent")

Seed: TypeAlias = int | None
"""None: chance plays no part, so one result stands for every seed."""
DetectorKey: TypeAlias = tuple[str, str, Seed]
"""Category, variant, seed."""


@dataclass(frozen=True)
class PhotoScores:
    """The scored photos of one detector, ordered by URI.

    Attributes:
        uris: (N,) URIs.
        labels: (N,) True is defective.
        scores: (N,) float64.
    """

    uris: npt.NDArray[np.str_]
    labels: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class VariantSummary:
    """One variant over its seeds.

    Attributes:
        variant: its name.
        seeds: number of seeds with metrics in every category that is averaged.
        by_category: category -> metric -> mean and interval over seeds.
        mean: metric -> mean over those categories but the ones set apart, its interval from the means of these seeds.
    """

    variant: str
    seeds: int
    by_category: Mapping[str, Mapping[str, Interval]]
    mean: Mapping[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """A variant against a reference, AUROC: the variant's minus the reference's.

    Attributes:
        variant: its name.
        reference: what it is compared with.
        categories: those in which both were scored by a common seed.
        seeds: fewest common seeds of a category.
        mean: mean difference over the categories; None where nothing can be compared.
        low: lower end of the 95 % interval, by bootstrap over photos and seeds.
        high: upper end.
        share_not_above: share of the resamples with a difference <= 0.
        wide_low: lower end of the 95 % interval where the categories are resampled, too; None for a single one.
        wide_high: upper end.
    """

    variant: str
    reference: str
    categories: tuple[str, ...]
    seeds: int
    mean: float | None
    low: float | None
    high: float | None
    share_not_above: float | None
    wide_low: float | None = None
    wide_high: float | None = None


def group_scores(rows: pa.Table) -> dict[DetectorKey, PhotoScores]:
    """Returns the scored photos of every detector in EVALUATED rows, in order, but for detectors that scored none."""
    scored = rows.filter(pc.equal(rows["status"], Status.SCORED)).sort_by("image_uri")
    listed = [("image_uri", "list"), ("label", "list"), ("score", "list")]
    # Threads would let a list lose the order of the sorted rows.
    grouped = scored.group_by(["category", "variant", "seed"], use_threads=False).aggregate(listed)
    by_detector = grouped.sort_by([(key, "ascending") for key in ("category", "variant", "seed")])
    return {
        (row["category"], row["variant"], row["seed"]): PhotoScores(
            uris=np.array(row["image_uri_list"]),
            labels=np.array(row["label_list"]) != FLAWLESS,
            scores=np.array(row["score_list"], dtype=np.float64),
        )
        for row in by_detector.to_pylist()
    }


def measure_detectors(rows: pa.Table, *, promises: Mapping[DetectorKey, Promise] | None = None) -> pa.Table:
    """Returns one METRICS row per category and detector of EVALUATED ``rows``, by category, variant and seed.

    Args:
        rows: EVALUATED rows.
        promises: of the calibrated detectors, to set their false alarms against.
    """
    keys = ["category", "variant", "seed", "detector_id"]
    scored = group_scores(rows)
    unscored = pc.cast(pc.not_equal(rows["status"], Status.SCORED), pa.int64())
    counted = rows.append_column("not_scored", unscored).group_by(keys).aggregate([("not_scored", "sum")])
    counted = counted.rename_columns([*keys, "not_scored"]).sort_by([(key, "ascending") for key in keys])
    found = [
        {**row, **measure_detector(scored.get(key), promise=(promises or {}).get(key))}
        for row in counted.to_pylist()
        for key in [(row["category"], row["variant"], row["seed"])]
    ]
    return pa.Table.from_pylist(found, schema=METRICS)


def measure_detector(photos: PhotoScores | None, *, promise: Promise | None) -> dict[str, Any]:
    """Returns the metrics of a METRICS row, or the reason why they are missing."""
    if photos is None:
        return {"flawless": 0, "defective": 0, "reason": "no photo was scored"}
    return measure_separation(photos) | measure_promise(photos, promise)


def measure_promise(photos: PhotoScores, promise: Promise | None) -> dict[str, Any]:
    """Returns the fields of a METRICS row about false alarms; none where nothing was promised."""
    found = None if promise is None else measure_false_alarms(photos.scores[~photos.labels], promise)
    if promise is None or found is None:
        return {} if promise is None else {"false_alarm_rate": promise.false_alarm_rate}
    return {
        "false_alarm_rate": promise.false_alarm_rate,
        "false_alarms": found.reported,
        "realised_rate": found.rate,
        "realised_low": found.low,
        "realised_high": found.high,
        "is_promise_kept": found.is_kept,
    }


def measure_separation(photos: PhotoScores) -> dict[str, Any]:
    """Returns how well flawless and defective photos are told apart, or the reason why nobody knows: METRICS fields."""
    try:
        found = asdict(compute_metrics(photos.labels, photos.scores))
    except ValueError as error:
        defective = int(photos.labels.sum())
        return {"flawless": len(photos.labels) - defective, "defective": defective, "reason": str(error)}
    interval = bootstrap_auroc(photos.labels, photos.scores[None])
    return {**found, "auroc_low": interval.low, "auroc_high": interval.high, "reason": None}


def summarize_variants(
    metrics: pa.Table, *, variants: Iterable[str], apart: Collection[str] = ()
) -> list[VariantSummary]:
    """Returns a summary over seeds of each of ``variants`` that has metrics among METRICS rows.

    Args:
        metrics: METRICS rows.
        variants: names.
        apart: categories that are in no mean.
    """
    found = metrics.filter(pc.is_null(metrics["reason"])).to_pylist()
    rows = {variant: [row for row in found if row["variant"] == variant] for variant in variants}
    return [summarize_variant(variant, mine, apart=apart) for variant, mine in rows.items() if mine]


def summarize_variant(
    variant: str, rows: Sequence[Mapping[str, Any]], *, apart: Collection[str] = ()
) -> VariantSummary:
    """Returns the summary of one variant from its METRICS rows, at least one; see `summarize_variants`."""
    categories = list(dict.fromkeys(row["category"] for row in rows))
    # Where nothing but what is set apart was scored, that is all that can be averaged.
    averaged = [category for category in categories if category not in apart] or categories
    by_seed: dict[Seed, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["category"] in averaged:
            by_seed.setdefault(row["seed"], []).append(row)
    # A seed that misses a category would compare other photos, so it has no part in the interval of the mean.
    whole = [found for found in by_seed.values() if len(found) == len(averaged)]
    by_category = {
        category: {
            metric: estimate_seed_interval([row[metric] for row in rows if row["category"] == category])
            for metric in METRIC_NAMES
        }
        for category in categories
    }
    counted = {category: by_category[category] for category in averaged}
    mean = {metric: average_categories(metric, whole, counted) for metric in METRIC_NAMES}
    return VariantSummary(variant, len(whole), by_category, mean)


def average_categories(
    metric: str,
    seeds: Sequence[Sequence[Mapping[str, Any]]],
    by_category: Mapping[str, Mapping[str, Interval]],
) -> Interval:
    """Returns a metric's mean over categories, with its interval over seeds where there are several."""
    if seeds:
        return estimate_seed_interval([float(np.mean([row[metric] for row in rows])) for rows in seeds])
    return Interval(float(np.mean([intervals[metric].mean for intervals in by_category.values()])), None, None)


def compare_with_reference(rows: pa.Table, *, variants: Iterable[str], reference: str) -> list[Comparison]:
    """Compares each of ``variants`` with ``reference`` on the photos and seeds that both have, by paired bootstrap.

    Args:
        rows: EVALUATED rows.
        variants: names; the reference itself is passed over.
        reference: name of the variant to compare with.
    """
    scored = group_scores(rows)
    return [compare_pair(scored, variant, reference) for variant in variants if variant != reference]


def compare_pair(scored: Mapping[DetectorKey, PhotoScores], variant: str, reference: str) -> Comparison:
    """Compares a variant with the reference, see `compare_with_reference`."""
    pairs = {
        category: pair_scores(scored, category, variant, reference) for category in sorted({key[0] for key in scored})
    }
    paired = {category: pair for category, pair in pairs.items() if pair is not None}
    if not paired:
        return Comparison(variant, reference, (), 0, None, None, None, None)
    found = bootstrap_difference(list(paired.values()))
    seeds = min(len(pair.first) for pair in paired.values())
    return Comparison(variant, reference, tuple(paired), seeds, **asdict(found))


def pair_scores(
    scored: Mapping[DetectorKey, PhotoScores], category: str, variant: str, reference: str
) -> PairedScores | None:
    """Returns the scores of both variants on their common photos, a row per common seed.

    None where they have no seed in common, or where the common photos are all flawless or all defective.
    """
    first, second = select_seeds(scored, category, reference), select_seeds(scored, category, variant)
    seeds: list[Seed] = [seed for seed in {**first, **second} if seed is not None] or [None]
    both = [(select_seed(first, seed), select_seed(second, seed)) for seed in seeds]
    kept = [(one, other) for one, other in both if one is not None and other is not None]
    if not kept:
        return None
    common = set.intersection(*(set(photos.uris) for pair in kept for photos in pair))
    labels = kept[0][0].labels[np.isin(kept[0][0].uris, list(common))]
    if len(set(labels)) < 2:
        return None
    one, other = (np.stack([select_photos(pair[side], common) for pair in kept]) for side in (0, 1))
    return PairedScores(labels=labels, first=one, second=other)


def select_seeds(scored: Mapping[DetectorKey, PhotoScores], category: str, variant: str) -> dict[Seed, PhotoScores]:
    """Returns the scores of one variant on one category, by seed."""
    return {seed: photos for (of, name, seed), photos in scored.items() if (of, name) == (category, variant)}


def select_seed(by_seed: Mapping[Seed, PhotoScores], seed: Seed) -> PhotoScores | None:
    """Returns the scores of a seed, or of a detector that has none; None where there are neither."""
    return by_seed.get(seed, by_seed.get(None))


def select_photos(photos: PhotoScores, uris: set[str]) -> npt.NDArray[np.float64]:
    """Returns the scores, (n,), of those n photos that have these uris, in the order of ``photos``."""
    return photos.scores[np.isin(photos.uris, list(uris))]
