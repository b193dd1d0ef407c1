"""The results that a search writes: trials.parquet, results.json, pictures, index.html, lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.errors import explain_missing_extra
from jobs.evaluation.metrics import (
    Comparison,
    DetectorKey,
    VariantSummary,
    compare_with_reference,
    measure_detectors,
    summarize_variants,
)
from jobs.evaluation.report import format_difference, format_false_alarms, format_interval
from jobs.storage import uris
from jobs.tables.parquet import write_parquet
from model.network.backbone import list_stages
from model.statistics.false_alarms import Promise
from model.versions import read_versions
from tuning.choice.final import TUNED
from tuning.choice.finalists import Finalist
from tuning.choice.winner import format_winner
from tuning.config import SearchConfig
from tuning.report.analysis import compare_placements, compute_importances, correlate_label_free
from tuning.report.page import render_page
from tuning.report.pictures import draw_cost_front, draw_placements
from tuning.report.trials_table import build_trials_table, count_failures, format_ranking, rank_trials
from tuning.trials.records import TrialRecord

_TOP = 15


@dataclass
class SearchResults:
    """Everything that a search found.

    Attributes:
        config: what was asked for.
        objective: what trials were judged by.
        records: of all trials.
        finalists: the winner first.
        split: lines about the photos.
        rows: EVALUATED rows of the final comparison; None while the test is sealed.
        promises: of its detectors.
    """

    config: SearchConfig
    objective: str
    records: Mapping[int, TrialRecord]
    finalists: Sequence[Finalist]
    split: Sequence[str]
    rows: pa.Table | None = None
    promises: Mapping[DetectorKey, Promise] = field(default_factory=dict)

    def describe_false_alarms(self) -> list[str]:
        """Says in words how each detector of the final comparison keeps its promise; empty while the test is sealed."""
        if self.rows is None:
            return []
        return list(format_false_alarms(measure_detectors(self.rows, promises=self.promises), self.promises))

    def summarize(self) -> list[VariantSummary]:
        """Summarizes winner and presets over their seeds on the test photos; empty while it is sealed."""
        if self.rows is None:
            return []
        return summarize_variants(measure_detectors(self.rows), variants=[TUNED, *self.config.presets])

    def compare(self) -> list[Comparison]:
        """Compares the winner with each preset by paired bootstrap over test photos and seeds."""
        names = {one.variant for one in self.summarize()} - {TUNED}
        presets = [name for name in self.config.presets if name in names]
        return [one for name in presets for one in compare_with_reference(self.rows, variants=[TUNED], reference=name)]


def save_results(found: SearchResults) -> None:
    """Writes all of it into the results folder and prints what a person wants to know first."""
    results = found.config.results
    analysis = {
        "importances": [asdict(one) for one in compute_importances(found.records, objective=found.objective)],
        "placements": [asdict(one) for one in compare_result_placements(found)],
        "label_free": [asdict(one) for one in correlate_label_free(found.records)],
    }
    write_parquet(build_trials_table(found.records, objective=found.objective), uris.join(results, "trials.parquet"))
    if found.rows is not None:
        write_parquet(found.rows, uris.join(results, "final.parquet"))
    summary = {
        "config": found.config.model_dump(mode="json"),
        "objective": found.objective,
        "split": list(found.split),
        **analysis,
        "finalists": [
            {"trial": one.record.number, "name": one.record.name, "values": list(one.values), "reason": one.reason}
            for one in found.finalists
        ],
        "final": [asdict(one) for one in found.summarize()],
        "comparisons": [asdict(one) for one in found.compare()],
        "false_alarms": found.describe_false_alarms(),
        "versions": read_versions(),
    }
    storage.write(uris.join(results, "results.json"), json.dumps(summary, indent=1).encode())
    print("\n".join([*format_ranking(found.records, objective=found.objective, top=_TOP), *format_analysis(analysis)]))
    print("\n".join(format_comparison(found)))
    write_page(found, analysis)
    print(f"written to {results}")


def compare_result_placements(found: SearchResults) -> Any:
    """Compares the placements of attention over the trials of a search."""
    stages = list_stages(found.config.detector.backbone)
    return compare_placements(found.records, objective=found.objective, stages=stages)


def format_analysis(analysis: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Formats what the trials teach as two lines for a terminal."""
    most = [f"{one['dimension']} {one['share']:.2f}" for one in analysis["importances"][:6]]
    trusted = [
        f"{one['name']} {one['correlation']:+.2f} ({one['low']:+.2f}..{one['high']:+.2f})"
        for one in analysis["label_free"]
    ]
    return [
        "importance: " + (", ".join(most) or "too few trials"),
        "rank correlation of the label-free metrics with validation AUROC: "
        + (", ".join(trusted) or "no labels, or too few trials"),
    ]


def format_comparison(found: SearchResults) -> list[str]:
    """Formats the final comparison for a terminal; empty while the test is sealed."""
    summaries = [f"{one.variant:24} test AUROC {format_interval(one.mean['auroc'])}" for one in found.summarize()]
    return [*summaries, *map(format_difference, found.compare()), *found.describe_false_alarms()]


def write_page(found: SearchResults, analysis: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes pictures and the page; warns where the extra ``report`` is not installed."""
    results = found.config.results
    try:
        stages = list_stages(found.config.detector.backbone)
        pictures = {
            "placements.png": draw_placements(
                compare_result_placements(found), stages=stages, objective=found.objective
            ),
            "cost.png": draw_cost_front(found.records, objective=found.objective),
        }
        for name, png in pictures.items():
            storage.write(uris.join(results, name), png)
        html = render_page(collect_page_content(found, analysis), pictures=pictures)
    except ImportError as error:
        print(f"warning: no pictures and no page, {explain_missing_extra(error, extra='report')}")
        return
    storage.write(uris.join(results, "index.html"), html.encode())


def collect_page_content(found: SearchResults, analysis: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Collects what the page's template asks for."""
    rows = rank_trials(found.records, objective=found.objective)
    columns = ["objective", "auroc", "gflop", "epochs", "seconds", "status"]
    best = found.finalists[0]
    return {
        "category": found.config.category,
        "records": len(found.records),
        "split": found.split,
        "winner": f"Trial {best.record.number}, {best.record.name}: {found.objective} {best.mean:.4f} over new seeds.",
        "winner_yaml": format_winner(found.config, best),
        "final": to_final_table(found) if found.rows is not None else None,
        "finalists": {
            "head": ["trial", "name", f"mean {found.objective}", "seeds", "reason"],
            "rows": [
                [one.record.number, one.record.name, one.mean, ", ".join(f"{v:.4f}" for v in one.values), one.reason]
                for one in found.finalists
            ],
        },
        "trials": {
            "head": ["trial", "name", "preset", *columns],
            "rows": [
                [one.number, one.name, one.preset, *(read_cell(one, name, found) for name in columns)] for one in rows
            ],
        },
        "failures": count_failures(rows),
        "importances": to_page_table(analysis["importances"], ["dimension", "share", "trials"]),
        "label_free": to_page_table(analysis["label_free"], ["name", "correlation", "low", "high", "trials"]),
    }


def read_cell(record: TrialRecord, name: str, found: SearchResults) -> object:
    """Reads one column of the page's table of trials."""
    if name == "objective":
        return record.metrics.get(found.objective)
    return record.metrics.get(name) if name in ("auroc", "gflop") else getattr(record, name)


def to_page_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Selects columns of some rows for the page."""
    return {"head": columns, "rows": [[row[name] for name in columns] for row in rows]}


def to_final_table(found: SearchResults) -> dict[str, Any]:
    """Builds the page's table of the final comparison."""
    metrics = ("auroc", "aupr", "recall_at_1_percent", "recall_at_5_percent")
    return {
        "head": ["", *(f"{name} in %" for name in metrics)],
        "rows": [[one.variant, *(format_interval(one.mean[name]) for name in metrics)] for one in found.summarize()],
        "lines": [*map(format_difference, found.compare()), *found.describe_false_alarms()],
    }
