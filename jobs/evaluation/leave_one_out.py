"""What a choice of a variant is worth on a data set that it was not made on: one set is left out at a time.

A variant that wins on the sets that it was chosen on tells little about the next one
(infra/decisions/0056-best-is-overfitted.md). So it is chosen on all sets but one, and judged on that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.evaluation.metrics import Comparison, VariantSummary, compare_with_reference
from jobs.tables.text import format_table

CHOSEN = "chosen on the other sets"
"""Stands for the variant in comparisons: another one on each set, perhaps."""

Aurocs = Mapping[str, Mapping[str, float]]
"""Variant -> data set -> mean AUROC over its categories and seeds."""


@dataclass(frozen=True)
class LeftOut:
    """One data set, and the variant that all others chose for it.

    Attributes:
        data_set: the one left out.
        variant: of the highest mean AUROC over the other sets.
        others: that mean.
        auroc: of the variant on the set that was left out.
        is_confirmation: the set chooses for no other one either.
    """

    data_set: str
    variant: str
    others: float
    auroc: float
    is_confirmation: bool


def read_data_set(category: str) -> str:
    """Returns the data set of ``<data set>/<category>``."""
    return category.split("/", 1)[0]


def average_sets(summaries: Sequence[VariantSummary], *, variants: Sequence[str]) -> Aurocs:
    """Averages AUROC over the categories of each data set; a variant that failed somewhere is left out."""
    known = {one.variant: one for one in summaries if one.variant in variants}
    categories = max((set(one.by_category) for one in known.values()), key=len, default=set())
    found = {}
    for name, one in known.items():
        if set(one.by_category) != categories:
            continue
        by_set: dict[str, list[float]] = {}
        for category, metrics in one.by_category.items():
            by_set.setdefault(read_data_set(category), []).append(metrics["auroc"].mean)
        found[name] = {data_set: float(np.mean(values)) for data_set, values in by_set.items()}
    return found


def leave_each_out(aurocs: Aurocs, *, confirm: Sequence[str] = ()) -> list[LeftOut]:
    """Chooses a variant for each data set on all others; sets of ``confirm`` never choose.

    Args:
        aurocs: of every variant on every set.
        confirm: names of data sets.
    """
    sets = sorted({data_set for by_set in aurocs.values() for data_set in by_set})
    found = []
    for left in sets:
        others = [data_set for data_set in sets if data_set not in (left, *confirm)]
        means = {name: float(np.mean([by_set[one] for one in others])) for name, by_set in aurocs.items()}
        chosen = max(means, key=lambda name: means[name])
        found.append(LeftOut(left, chosen, means[chosen], aurocs[chosen][left], left in confirm))
    return found


def compare_choice(rows: pa.Table, choices: Sequence[LeftOut], *, reference: str) -> list[Comparison]:
    """Compares what was chosen with a variant by paired bootstrap: on the sets that choose, then on the others.

    Args:
        rows: EVALUATED rows of all variants.
        choices: of `leave_each_out`.
        reference: the variant to compare with.
    """
    found = []
    for is_confirmation in (False, True):
        parts = [
            select_rows(rows, choice, variant=variant, name=name)
            for choice in choices
            if choice.is_confirmation == is_confirmation
            for variant, name in ((choice.variant, CHOSEN), (reference, reference))
        ]
        if parts:
            found += compare_with_reference(pa.concat_tables(parts), variants=[CHOSEN], reference=reference)
    return found


def select_rows(rows: pa.Table, choice: LeftOut, *, variant: str, name: str) -> pa.Table:
    """Selects the rows of a variant on the set that was left out, under another name."""
    is_left = pa.array([read_data_set(category) == choice.data_set for category in rows["category"].to_pylist()])
    found = rows.filter(pc.and_(is_left, pc.equal(rows["variant"], variant)))
    place = found.schema.get_field_index("variant")
    return found.set_column(
        place, found.schema.field(place), pa.array([name] * len(found), found.schema.field(place).type)
    )


def format_choices(choices: Sequence[LeftOut], aurocs: Aurocs, *, reference: str) -> Iterator[str]:
    """Yields the lines of the protocol's table, AUROC in %."""
    developed = [choice for choice in choices if not choice.is_confirmation]
    yield "Leaving one set out: the variant of the highest mean AUROC on the other sets, and what it has on this one."
    yield ""
    columns = [
        "set left out",
        "chosen on the others",
        "mean there",
        "here",
        f"`{reference}` here",
        "best here, in hindsight",
    ]
    table: list[list[object]] = []
    for choice in choices:
        name = f"{choice.data_set} (confirms)" if choice.is_confirmation else choice.data_set
        here = {variant: by_set[choice.data_set] for variant, by_set in aurocs.items()}
        best = max(here, key=lambda variant: here[variant])
        figures = [_percent(choice.others), _percent(choice.auroc), _percent(here.get(reference))]
        table.append([name, f"`{choice.variant}`", *figures, f"{_percent(here[best])} `{best}`"])
    mean = float(np.mean([choice.auroc for choice in developed]))
    plain = [aurocs[reference][choice.data_set] for choice in developed] if reference in aurocs else []
    of_reference = _percent(float(np.mean(plain)) if plain else None)
    table.append(["**mean of the sets that choose**", "", "", f"**{_percent(mean)}**", of_reference, ""])
    yield format_table(columns, table, markdown=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
