"""Measured AUROC in the layout of the paper's tables: a row per category, a column per method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jobs.evaluation.metrics import VariantSummary
from jobs.evaluation.published.figures import AVERAGE, PUBLISHED_NAMES, PublishedFigure, find_published
from jobs.evaluation.report import format_interval
from jobs.tables.text import format_table
from model.baselines import BASELINES
from model.statistics.resampling import Interval

_NOT_OURS = {"differnet", *BASELINES}


def format_paper_table(summaries: Sequence[VariantSummary], categories: Sequence[str]) -> Iterator[str]:
    """Yields the lines of the table and of its sources.

    Args:
        summaries: of all methods, which are the columns.
        categories: ``<data set>/<category>``, which are the rows.
    """
    published = {category: find_published(category) for category in categories}
    others = [
        method
        for method in dict.fromkeys(method for found in published.values() for method in found)
        if method not in {PUBLISHED_NAMES.get(one.variant) for one in summaries}
    ]
    rows = [
        [category, *list_measured(summaries, category, published[category]), *list_others(others, published[category])]
        for category in categories
    ]
    rows.append([AVERAGE.lower(), *mark_best(summaries, {one.variant: one.mean["auroc"] for one in summaries})])
    columns = ["category", *(f"`{one.variant}`" for one in summaries), *(f"{method}, published" for method in others)]
    yield "AUROC in % as the paper prints it: the best measured one bold, the best of ours underlined."
    yield ""
    yield format_table(columns, [[*row, *[""] * (len(columns) - len(row))] for row in rows], markdown=True)
    if sources := sorted({figure.source for found in published.values() for figure in found.values()}):
        yield ""
        yield f"Published figures, in parentheses or in columns of their own, from {'; '.join(sources)}."


def list_measured(
    summaries: Sequence[VariantSummary], category: str, published: Mapping[str, PublishedFigure]
) -> list[str]:
    """Returns a category's cells of the measured methods, each with the published figure where there is one."""
    marked = mark_best(
        summaries, {one.variant: one.by_category[category]["auroc"] for one in summaries if category in one.by_category}
    )
    return [
        cell + format_published(published.get(PUBLISHED_NAMES.get(one.variant, "")))
        for cell, one in zip(marked, summaries, strict=True)
    ]


def format_published(figure: PublishedFigure | None) -> str:
    """Returns a published figure in parentheses; nothing where there is none."""
    return "" if figure is None else f" ({figure.auroc_percent:.2f})"


def list_others(methods: Sequence[str], published: Mapping[str, PublishedFigure]) -> list[str]:
    """Returns the published figures of methods that were not measured."""
    return [format_published(published.get(method)).strip(" ()") for method in methods]


def mark_best(summaries: Sequence[VariantSummary], aurocs: Mapping[str, Interval]) -> list[str]:
    """Returns a cell for each method, the best one bold and the best of ours underlined; "-" where it has none."""
    ours = {name: value for name, value in aurocs.items() if name not in _NOT_OURS}
    best = max(aurocs, key=lambda name: aurocs[name].mean, default=None)
    best_of_ours = max(ours, key=lambda name: ours[name].mean, default=None)
    cells = []
    for name in (one.variant for one in summaries):
        cell = format_interval(aurocs[name], sign="±") if name in aurocs else "-"
        cell = f"**{cell}**" if name == best else cell
        cells.append(f"<u>{cell}</u>" if name == best_of_ours else cell)
    return cells
