"""AUROC, and the inputs for which it has no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation import auroc

_SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


@given(_SCORED)
def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_counted_half(rows: list[tuple[bool, int]]) -> None:
    defective = [score for label, score in rows if label]
    flawless = [score for label, score in rows if not label]
    pairs = [float(d > f) + 0.5 * float(d == f) for d in defective for f in flawless]

    value = auroc(np.array([label for label, _ in rows]), np.array([score for _, score in rows], dtype=np.float64))

    assert value == pytest.approx(np.mean(pairs), abs=1e-12)  # both are sums of at most 400 exact halves


def test_integer_labels_are_read_as_boolean_ones() -> None:
    scores = np.array([0.1, 0.9, 0.4])
    assert auroc(np.array([0, 1, 1]), scores) == auroc(np.array([False, True, True]), scores) == 1.0


@pytest.mark.parametrize(
    ("labels", "scores", "reason"),
    [
        ([0, 0], [0.1, 0.2], "2 flawless and 0 defective"),
        ([1, 1, 1], [0.1, 0.2, 0.3], "0 flawless and 3 defective"),
        ([0, 1], [0.1, np.nan], "1 NaN of 2"),
        ([0, 1, 1], [0.1, 0.2], "one label per score"),
        ([0, 2], [0.1, 0.2], "labels 0"),
        ([], [], "both classes"),
    ],
)
def test_input_without_an_auroc_is_refused_in_one_line(labels: list[int], scores: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        auroc(np.array(labels, dtype=np.int64), np.array(scores))
    assert "\n" not in str(refusal.value)
