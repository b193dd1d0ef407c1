"""Which photos of a run are explained, as ``--explain`` says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PER_CATEGORY = 200
"""Photos of a category that a run explains at most, whatever was asked for: each is fetched again."""


@dataclass(frozen=True)
class Choice:
    """The most anomalous photos of each category.

    Attributes:
        per_category: how many, at most.
        only_anomalies: those that were reported alone.
    """

    per_category: int
    only_anomalies: bool


def parse_choice(text: str) -> Choice | None:
    """Parses ``top:K``, ``anomalies`` or ``none``, which is None.

    Raises:
        ValueError: it is none of them.
    """
    if text == "none":
        return None
    if text == "anomalies":
        return Choice(MAX_PER_CATEGORY, only_anomalies=True)
    found = re.fullmatch(r"top:([1-9]\d{0,2})", text)
    if found is None or int(found[1]) > MAX_PER_CATEGORY:
        raise ValueError(f"expected top:K with K from 1 to {MAX_PER_CATEGORY}, anomalies or none, got {text!r}")
    return Choice(int(found[1]), only_anomalies=False)
