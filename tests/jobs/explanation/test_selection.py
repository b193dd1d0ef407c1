"""Which photos of a run are explained: the most anomalous of each category, and what is left out is counted."""

from __future__ import annotations

import pytest

from jobs.errors import RequestError
from jobs.explanation.choice import MAX_PER_CATEGORY, Choice, parse_choice
from jobs.explanation.selection import COLUMNS, MostAnomalous
from jobs.score import main
from tests.jobs.findings.scores import make_scores


def _select(choice: Choice, *nights: list[dict[str, object]]) -> MostAnomalous:
    selection = MostAnomalous(choice)
    selection.read(make_scores(*rows).select(list(COLUMNS)) for rows in nights)
    return selection


def _row(uri: str, tail_rank: float | None, **changes: object) -> dict[str, object]:
    return {"image_uri": uri, "tail_rank": tail_rank, **changes}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("none", None),
        ("top:5", Choice(5, only_anomalies=False)),
        ("anomalies", Choice(MAX_PER_CATEGORY, only_anomalies=True)),
    ],
)
def test_a_choice_is_what_its_words_say(text: str, choice: Choice | None) -> None:
    assert parse_choice(text) == choice


@pytest.mark.parametrize("text", ["top", "top:0", "top:-1", "top:201", "top:5x", "all", "", "Top:5", "top:1e2"])
def test_what_is_no_choice_is_refused_in_one_line(text: str) -> None:
    required = ["--archive", "/a", "--detectors", "/d", "--results", "/o", "--run-id", "n"]
    with pytest.raises(RequestError, match=r"--explain: expected top:K with K from 1 to 200, anomalies or none, got"):
        main([*required, f"--explain={text}"])


def test_the_most_anomalous_of_each_category_are_taken_over_all_batches() -> None:
    first = [_row("a", 0.3), _row("b", 0.1), _row("t1", 0.9, category="tower")]
    second = [_row("c", 0.2), _row("d", None), _row("t2", 0.8, category="tower"), _row("e", 0.01, status="failed")]
    found = _select(Choice(2, only_anomalies=False), first, second)
    assert [row["image_uri"] for row in found.rows] == ["b", "c", "t2", "t1"]
    assert found.left_out == {}


def test_of_reported_photos_those_beyond_the_bound_are_counted() -> None:
    rows = [_row(f"p{number}", number / 10, is_anomaly=number < 5) for number in range(9)]
    unsure = [_row("null", 0.001, is_anomaly=None), _row("t", 0.1, category="tower", is_anomaly=True)]
    found = _select(Choice(3, only_anomalies=True), rows, unsure)
    assert [row["image_uri"] for row in found.rows] == ["p0", "p1", "p2", "t"]
    assert found.left_out == {"insulator": 2}
