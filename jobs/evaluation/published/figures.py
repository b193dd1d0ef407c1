"""The figures of the papers, each with its source; figures.csv holds them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jobs.datasets.counts import simplify

AVERAGE = "Average"
"""Category of a table's last row, as printed: some differ from the column's mean by rounding."""

PUBLISHED_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "differnet": "DifferNet",
        "attentdiffernet_se": "AttentDifferNet (SENet)",
        "attentdiffernet_cbam": "AttentDifferNet (CBAM)",
    }
)
"""Variant -> what the papers call it."""


class PublishedFigure(NamedTuple):
    """One cell of a paper's table.

    Attributes:
        source: paper and table.
        data_set: as `jobs.dataset` names it.
        category: as printed.
        method: as printed.
        auroc_percent: of images.
    """

    source: str
    data_set: str
    category: str
    method: str
    auroc_percent: float


@lru_cache(maxsize=1)
def read_published() -> Sequence[PublishedFigure]:
    """Reads all figures."""
    with Path(__file__).with_name("figures.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [
        PublishedFigure(source, data_set, category, method, float(auroc))
        for source, data_set, category, method, auroc in rows
    ]


def find_published(category: str) -> dict[str, PublishedFigure]:
    """Returns the published figures of ``<data set>/<category>`` by method; none where nobody has published any.

    Names are compared without regard to capitals, spaces, - and _.
    """
    data_set, _, name = category.partition("/")
    asked = simplify(data_set), simplify(name)
    return {
        figure.method: figure
        for figure in read_published()
        if (simplify(figure.data_set), simplify(figure.category)) == asked
    }
