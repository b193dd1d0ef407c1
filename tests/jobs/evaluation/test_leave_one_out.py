"""Leaving one data set out: what is chosen on the others is judged on the one that had no say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from jobs.evaluation.leave_one_out import (
    CHOSEN,
    average_sets,
    compare_choice,
    format_choices,
    leave_each_out,
)
from jobs.evaluation.metrics import VariantSummary, measure_detectors, summarize_variants
from jobs.tables.schema import EVALUATED, Status

_AUROCS = {
    "plain": {"a": 0.80, "b": 0.80, "c": 0.80, "kept": 0.9},
    "tuned": {"a": 0.99, "b": 0.70, "c": 0.75, "kept": 0.1},
    "steady": {"a": 0.82, "b": 0.81, "c": 0.79, "kept": 0.5},
}


def test_the_set_that_is_left_out_has_no_say() -> None:
    found = {one.data_set: one for one in leave_each_out(_AUROCS, confirm=["kept"])}
    assert found["a"].variant in ("plain", "steady")  # tuned wins on a alone
    assert found["b"].variant == "tuned"
    assert found["b"].others == pytest.approx((0.99 + 0.75) / 2)
    assert found["b"].auroc == 0.70


def test_a_set_that_confirms_chooses_for_none() -> None:
    with_it = leave_each_out(_AUROCS, confirm=["kept"])
    without = leave_each_out({name: {k: v for k, v in one.items() if k != "kept"} for name, one in _AUROCS.items()})
    assert [one for one in with_it if not one.is_confirmation] == without
    (kept,) = [one for one in with_it if one.is_confirmation]
    assert (kept.variant, kept.auroc) == ("tuned", 0.1)


def _rows() -> pa.Table:
    """Rows of two variants on two categories of one set and on one of another; `good` ranks all photos rightly."""
    rng, rows = np.random.default_rng(0), []
    for category in ("a/x", "a/y", "b/x"):
        for variant in ("good", "poor"):
            for number in range(40):
                defect = number % 2
                score = rng.normal() + (9 * defect if variant == "good" else 0)
                rows.append(
                    {
                        "category": category,
                        "variant": variant,
                        "seed": 0,
                        "label": "crack" if defect else "good",
                        "image_uri": f"{category}/{number}",
                        "status": Status.SCORED,
                        "score": score,
                    }
                )
    return pa.Table.from_pylist(rows, schema=EVALUATED)


def _summaries(rows: pa.Table) -> list[VariantSummary]:
    return summarize_variants(measure_detectors(rows), variants=["good", "poor"])


def test_categories_of_a_set_count_as_one_set() -> None:
    rows = _rows()
    aurocs = average_sets(_summaries(rows), variants=["good", "poor"])
    assert set(aurocs["good"]) == {"a", "b"}
    assert aurocs["good"]["a"] == 1


def test_a_variant_that_failed_on_a_category_cannot_be_chosen() -> None:
    rows = _rows()
    failed = pa.array(
        [
            (c, v) != ("b/x", "good")
            for c, v in zip(*(rows[k].to_pylist() for k in ("category", "variant")), strict=True)
        ]
    )
    assert set(average_sets(_summaries(rows.filter(failed)), variants=["good", "poor"])) == {"poor"}


def test_the_choice_is_compared_with_the_reference_photo_by_photo() -> None:
    rows = _rows()
    choices = leave_each_out(average_sets(_summaries(rows), variants=["good", "poor"]), confirm=["b"])
    on_choosing, on_others = compare_choice(rows, choices, reference="poor")
    assert (on_choosing.variant, on_choosing.reference, on_choosing.categories) == (CHOSEN, "poor", ("a/x", "a/y"))
    assert on_others.categories == ("b/x",)
    assert on_others.low is not None
    assert on_others.low > 0.2


def test_the_table_has_a_row_a_set_and_the_mean_without_those_that_confirm() -> None:
    lines = "\n".join(format_choices(leave_each_out(_AUROCS, confirm=["kept"]), _AUROCS, reference="plain"))
    assert "kept (confirms)" in lines
    choices = [one for one in leave_each_out(_AUROCS, confirm=["kept"]) if not one.is_confirmation]
    assert f"**{100 * np.mean([one.auroc for one in choices]):.1f}**" in lines
    assert "99.0 `tuned`" in lines
