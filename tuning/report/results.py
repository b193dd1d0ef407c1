"""What a search leaves behind: trials.parquet, results.json, pictures, index.html, and lines on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.detectors.lineage import versions
from jobs.evaluation.metrics import Comparison, VariantSummary, compare, figure_table, variant_summaries
from jobs.evaluation.report import comparison_line, percent_cell
from jobs.storage import uris
from jobs.tables.parquet import write_parquet
from model.config import BACKBONE_STAGES
from tuning.choice.final import TUNED
from tuning.choice.finalists import Finalist
from tuning.choice.winner import winner_yaml
from tuning.config import SearchConfig
from tuning.report.lessons import guides, importances, placements
from tuning.report.page import page
from tuning.report.pictures import cost_front, placement_map
from tuning.report.trials_table import failures, ranked, ranked_lines, trials_table
from tuning.trials.records import TrialRecord

_TOP = 15


@dataclass
class Found:
    """Everything that a search found.

    Attributes:
        config: what was asked for.
        objective: what trials were judged by.
        records: of all trials.
        finalists: the winner first.
        split: lines about the photos.
        rows: EVALUATED rows of the final comparison; None while the test is sealed.
    """

    config: SearchConfig
    objective: str
    records: Mapping[int, TrialRecord]
    finalists: Sequence[Finalist]
    split: Sequence[str]
    rows: pa.Table | None = None

    def summaries(self) -> list[VariantSummary]:
        """Winner and presets over their seeds, on the test photos; empty while it is sealed."""
        if self.rows is None:
            return []
        return variant_summaries(figure_table(self.rows), variants=[TUNED, *self.config.presets])

    def comparisons(self) -> list[Comparison]:
        """The winner against each preset, by paired bootstrap over test photos and seeds."""
        names = {one.variant for one in self.summaries()} - {TUNED}
        presets = [name for name in self.config.presets if name in names]
        return [one for name in presets for one in compare(self.rows, variants=[TUNED], reference=name)]


def save_results(found: Found) -> None:
    """Writes all of it into the results folder and prints what a person wants to know first."""
    results = found.config.results
    lessons = {
        "importances": [asdict(one) for one in importances(found.records, objective=found.objective)],
        "placements": [asdict(one) for one in _placements(found)],
        "guides": [asdict(one) for one in guides(found.records)],
    }
    write_parquet(trials_table(found.records, objective=found.objective), uris.join(results, "trials.parquet"))
    if found.rows is not None:
        write_parquet(found.rows, uris.join(results, "final.parquet"))
    summary = {
        "config": found.config.model_dump(mode="json"),
        "objective": found.objective,
        "split": list(found.split),
        **lessons,
        "finalists": [
            {"trial": one.record.number, "name": one.record.name, "values": list(one.values), "reason": one.reason}
            for one in found.finalists
        ],
        "final": [asdict(one) for one in found.summaries()],
        "comparisons": [asdict(one) for one in found.comparisons()],
        "versions": versions(),
    }
    storage.write(uris.join(results, "results.json"), json.dumps(summary, indent=1).encode())
    print("\n".join([*ranked_lines(found.records, objective=found.objective, top=_TOP), *_lesson_lines(lessons)]))
    print("\n".join(final_lines(found)))
    _write_page(found, lessons)
    print(f"written to {results}")


def _placements(found: Found) -> Any:
    stages = BACKBONE_STAGES[found.config.detector.backbone]
    return placements(found.records, objective=found.objective, stages=stages)


def _lesson_lines(lessons: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    most = [f"{one['dimension']} {one['share']:.2f}" for one in lessons["importances"][:6]]
    trusted = [
        f"{one['name']} {one['correlation']:+.2f} ({one['low']:+.2f}..{one['high']:+.2f})" for one in lessons["guides"]
    ]
    return [
        "importance: " + (", ".join(most) or "too few trials"),
        "rank correlation of the guides with validation AUROC: "
        + (", ".join(trusted) or "no labels, or too few trials"),
    ]


def final_lines(found: Found) -> list[str]:
    """The final comparison for a person; empty while the test is sealed."""
    summaries = [f"{one.variant:24} test AUROC {percent_cell(one.mean['auroc'])}" for one in found.summaries()]
    return [*summaries, *map(comparison_line, found.comparisons())]


def _write_page(found: Found, lessons: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    results = found.config.results
    try:
        stages = BACKBONE_STAGES[found.config.detector.backbone]
        pictures = {
            "placements.png": placement_map(_placements(found), stages=stages, objective=found.objective),
            "cost.png": cost_front(found.records, objective=found.objective),
        }
        for name, png in pictures.items():
            storage.write(uris.join(results, name), png)
        html = page(_content(found, lessons), pictures=pictures)
    except ImportError as error:
        print(f"warning: no pictures and no page, {error}: install attentdiffernet-ray[report]")
        return
    storage.write(uris.join(results, "index.html"), html.encode())


def _content(found: Found, lessons: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    rows = ranked(found.records, objective=found.objective)
    columns = ["objective", "auroc", "gflop", "epochs", "seconds", "status"]
    best = found.finalists[0]
    return {
        "category": found.config.category,
        "records": len(found.records),
        "split": found.split,
        "winner": f"Trial {best.record.number}, {best.record.name}: {found.objective} {best.mean:.4f} over new seeds.",
        "winner_yaml": winner_yaml(found.config, best),
        "final": _final_table(found) if found.rows is not None else None,
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
                [one.number, one.name, one.preset, *(_cell(one, name, found) for name in columns)] for one in rows
            ],
        },
        "failures": failures(rows),
        "importances": _table(lessons["importances"], ["dimension", "share", "trials"]),
        "guides": _table(lessons["guides"], ["name", "correlation", "low", "high", "trials"]),
    }


def _cell(record: TrialRecord, name: str, found: Found) -> object:
    if name == "objective":
        return record.figures.get(found.objective)
    return record.figures.get(name) if name in ("auroc", "gflop") else getattr(record, name)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    return {"head": columns, "rows": [[row[name] for name in columns] for row in rows]}


def _final_table(found: Found) -> dict[str, Any]:
    metrics = ("auroc", "aupr", "recall_at_1_percent", "recall_at_5_percent")
    return {
        "head": ["", *(f"{name} in %" for name in metrics)],
        "rows": [[one.variant, *(percent_cell(one.mean[name]) for name in metrics)] for one in found.summaries()],
        "lines": [comparison_line(one) for one in found.comparisons()],
    }
