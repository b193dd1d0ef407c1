"""Published figures beside measured ones, in the layout of the paper's tables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from jobs.evaluation.metrics import VariantSummary
from jobs.evaluation.published.figures import find_published, read_published
from jobs.evaluation.published.table import format_paper_table
from model.statistics.resampling import Interval
from tests.support.places import ROOT

HANDED_OUT = ROOT.parent / "shared" / "published"


def summarize(variant: str, **aurocs: float) -> VariantSummary:
    by_category = {f"mvtec_ad/{name}": {"auroc": Interval(value, None, None)} for name, value in aurocs.items()}
    mean = {"auroc": Interval(sum(aurocs.values()) / len(aurocs), None, None)}
    return VariantSummary(variant, 1, by_category, mean)


def test_the_best_is_bold_and_the_best_of_ours_underlined_beside_the_published() -> None:
    summaries = [summarize("differnet", grid=0.8), summarize("attentdiffernet_se", grid=0.85)]
    summaries += [summarize("best", grid=0.84), summarize("mahalanobis", grid=0.9)]
    lines = "\n".join(format_paper_table(summaries, ["mvtec_ad/grid"])).splitlines()
    (row,) = [line for line in lines if line.startswith("| mvtec_ad/grid")]
    assert [cell.strip() for cell in row.strip("|").split("|")][1:6] == [
        "80.00 (84.00)",
        "<u>85.00</u> (90.89)",
        "84.00",
        "**90.00**",
        "91.23",  # AttentDifferNet (CBAM), which was not measured
    ]
    assert lines[-1].endswith("from arXiv 2401.08686, table 3.")


def test_a_set_that_nobody_published_stands_alone() -> None:
    lines = list(
        format_paper_table([VariantSummary("differnet", 1, {}, {"auroc": Interval(0.5, None, None)})], ["a/b"])
    )
    assert "published" not in "\n".join(lines)
    assert "| a/b" in "\n".join(lines)


@pytest.mark.parametrize("category", ["insplad_fault/Glass Insulator", "InsPLAD-fault/glass-insulator"])
def test_categories_are_found_however_they_are_written(category: str) -> None:
    assert find_published(category)["AttentDifferNet (SENet)"].auroc_percent == 86.57


def test_printed_averages_are_the_means_but_for_rounding() -> None:
    cells: dict[tuple[str, str], list[float]] = {}
    printed = {}
    for figure in read_published():
        key = figure.data_set, figure.method
        if figure.category == "Average":
            printed[key] = figure.auroc_percent
        else:
            cells.setdefault(key, []).append(figure.auroc_percent)
    off = {key: sum(cells[key]) / len(cells[key]) - mean for key, mean in printed.items()}
    assert {key: round(value, 2) for key, value in off.items() if abs(value) > 0.15} == {}


@pytest.mark.skipif(not HANDED_OUT.exists(), reason="the tables that were handed out are not here")
@pytest.mark.parametrize("name", ["insplad_fault", "mvtec_ad", "semiconductor_wafer"])
def test_figures_are_those_of_the_tables_that_were_handed_out(name: str) -> None:
    header, *rows = csv.reader((HANDED_OUT / f"{name}.csv").open())
    asked = {(row[0], method): float(value) for row in rows for method, value in zip(header[1:], row[1:], strict=True)}
    assert asked == {(one.category, one.method): one.auroc_percent for one in read_published() if one.data_set == name}


def test_the_wheel_has_the_figures() -> None:
    assert '"evaluation/published/figures.csv"' in (ROOT / "pyproject.toml").read_text()
    assert (Path(ROOT) / "jobs/evaluation/published/figures.csv").exists()
