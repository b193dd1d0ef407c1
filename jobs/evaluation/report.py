"""What an evaluation leaves behind: the printed tables, and a folder of JSON, Parquet and histograms."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.errors import explain_missing_extra
from jobs.evaluation.histograms import draw_histograms
from jobs.evaluation.metrics import METRIC_NAMES, Comparison, DetectorKey, VariantSummary, group_scores
from jobs.storage import uris
from jobs.tables.parquet import write_parquet
from jobs.tables.schema import Status
from jobs.tables.text import format_table
from model.statistics.calibration import describe_shortage
from model.statistics.false_alarms import Promise, RealisedRate, describe_realised_rate
from model.statistics.resampling import Interval
from model.versions import read_versions


@dataclass(frozen=True)
class MissingDetector:
    """A detector that was asked for and cannot be evaluated."""

    category: str
    alias: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation found.

    Attributes:
        rows: EVALUATED rows.
        metrics: METRICS rows.
        summaries: every variant over its seeds.
        comparisons: every variant but the first against the first.
        missing: what could not be evaluated.
        promises: of the calibrated detectors.
    """

    rows: pa.Table
    metrics: pa.Table
    summaries: Sequence[VariantSummary]
    comparisons: Sequence[Comparison]
    missing: Sequence[MissingDetector]
    promises: Mapping[DetectorKey, Promise] = field(default_factory=dict)


def format_evaluation(found: Evaluation) -> str:
    """Returns the tables for a person, in percent; the last lines are means over categories, and comparisons."""
    lines = [format_detectors(found.metrics), *list_remarks(found)]
    lines += format_false_alarms(found.metrics, found.promises)
    lines += format_summaries(found)
    lines += map(format_difference, found.comparisons)
    lines += [f"missing: {one.alias} of {one.category}: {one.reason}" for one in found.missing]
    return "\n".join(lines)


def format_detectors(metrics: pa.Table) -> str:
    """Returns a table with a row per METRICS row, in percent."""
    columns = ["category", "variant", "seed", "flawless", "defective"]
    percents = {
        "AUROC %": "auroc",
        "from": "auroc_low",
        "to": "auroc_high",
        "AUPR %": "aupr",
        "recall % at 1 %": "recall_at_1_percent",
        "at 5 %": "recall_at_5_percent",
    }
    rows = [
        [
            *(row[name] for name in columns),
            *(None if row[name] is None else format_percent(row[name]) for name in percents.values()),
        ]
        for row in metrics.to_pylist()
    ]
    return format_table([*columns, *percents], rows)


def list_remarks(found: Evaluation) -> Iterator[str]:
    """Yields why a detector has no metrics, and why photos have no score."""
    for row in found.metrics.to_pylist():
        seed = "" if row["seed"] is None else f", seed {row['seed']}"
        who = f"{row['variant']} on {row['category']}{seed}"
        if row["reason"]:
            yield f"no metrics of {who}: {row['reason']}"
        yield from (f"left out by {who}: {count} {error}" for error, count in count_unscored(found.rows, row))


def format_false_alarms(metrics: pa.Table, promises: Mapping[DetectorKey, Promise]) -> Iterator[str]:
    """Yields a line for each calibrated detector: its false alarms, and whether they agree with its promise."""
    rows = {(row["category"], row["variant"], row["seed"]): row for row in metrics.to_pylist()}
    for (category, variant, seed), promise in promises.items():
        row = rows.get((category, variant, seed))
        if row is not None and row["flawless"]:
            who = f"false alarms of {variant} on {category}{'' if seed is None else f', seed {seed}'}"
            yield f"{who}: {describe_false_alarms(row, promise)}"


def describe_false_alarms(row: Mapping[str, Any], promise: Promise) -> str:
    """Says in words what a METRICS row has of false alarms, against what was promised."""
    if row["false_alarms"] is None:
        rate, confidence = promise.false_alarm_rate, promise.confidence
        shortage = describe_shortage(promise.photos, false_alarm_rate=rate, confidence=confidence)
        return f"none possible, {shortage}"
    realised = RealisedRate(
        flawless=row["flawless"],
        reported=row["false_alarms"],
        rate=row["realised_rate"],
        low=row["realised_low"],
        high=row["realised_high"],
        is_kept=row["is_promise_kept"],
    )
    return describe_realised_rate(realised, promise)


def count_unscored(rows: pa.Table, detector: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Counts the reasons why photos have no score, the most frequent first."""
    mine = pc.and_(
        pc.and_(pc.equal(rows["category"], detector["category"]), pc.equal(rows["variant"], detector["variant"])),
        pc.and_(pc.equal(rows["seed"], detector["seed"]), pc.not_equal(rows["status"], Status.SCORED)),
    )
    return Counter(rows.filter(mine)["error"].to_pylist()).most_common()


def format_summaries(found: Evaluation) -> Iterator[str]:
    """Yields a line for each variant, and for each of its categories where there are several seeds."""
    several = any(summary.seeds > 1 for summary in found.summaries)
    what = ", mean +- half of the 95 % interval over seeds" if several else ""
    for summary in found.summaries:
        if several:
            for category, intervals in summary.by_category.items():
                yield f"{category:20} {summary.variant:24} {format_intervals(intervals)}"
        name = f"mean of {len(summary.by_category)}"
        yield f"{name:20} {summary.variant:24} {format_intervals(summary.mean)} ({summary.seeds} seed(s){what})"


def format_intervals(intervals: Mapping[str, Interval]) -> str:
    """Formats the metrics of one variant, in percent."""
    names = ("AUROC", "AUPR", "recall at 1 %", "at 5 %")
    return ", ".join(
        f"{name} {format_interval(intervals[metric])}" for name, metric in zip(names, METRIC_NAMES, strict=True)
    )


def format_percent(value: float) -> str:
    """Returns a share as percent with two digits."""
    return f"{100 * value:.2f}"


def format_interval(interval: Interval, *, sign: str = "+-") -> str:
    """Returns ``87.12 +- 1.24`` in percent, or the mean alone where there is no interval."""
    if interval.high is None:
        return format_percent(interval.mean)
    return f"{format_percent(interval.mean)} {sign} {format_percent(interval.high - interval.mean)}"


def format_difference(found: Comparison) -> str:
    """Returns one comparison in words."""
    who = f"{found.variant} against {found.reference}:"
    if found.mean is None or found.low is None or found.high is None:
        return f"{who} no category has a common seed and both classes of photos"
    interval = f"{100 * found.low:+.2f}..{100 * found.high:+.2f}"
    on = f"{len(found.categories)} categories, {found.seeds} seed(s), paired bootstrap over photos and seeds"
    return f"{who} {100 * found.mean:+.2f} points of AUROC ({interval}, P(<= 0) {found.share_not_above:.3f}; {on})"


def write_evaluation(found: Evaluation, folder: str, *, request: Mapping[str, Any]) -> None:
    """Writes metrics.json, metrics.parquet, results.parquet and histograms/ below the URI ``folder``.

    Args:
        found: the evaluation.
        folder: URI.
        request: what was asked for, kept in metrics.json.
    """
    report = {
        "request": dict(request),
        "detectors": found.metrics.to_pylist(),
        "variants": [asdict(summary) for summary in found.summaries],
        "comparisons": [asdict(comparison) for comparison in found.comparisons],
        "missing": [asdict(one) for one in found.missing],
        "versions": read_versions(),
    }
    write_parquet(found.rows, uris.join(folder, "results.parquet"))
    write_parquet(found.metrics, uris.join(folder, "metrics.parquet"))
    storage.write(uris.join(folder, "metrics.json"), json.dumps(report, indent=2).encode())
    write_histograms(found.rows, folder)


def write_histograms(rows: pa.Table, folder: str) -> None:
    """Writes histograms/<category>.<variant>.png of EVALUATED rows; without matplotlib, says what to install."""
    try:
        for name, png in draw_histograms(group_scores(rows)):
            storage.write(uris.join(folder, "histograms", name), png)
    except ImportError as error:
        print(f"warning: no histograms, {explain_missing_extra(error, extra='report')}")
