"""What came of explaining a run, for its last words."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.explanation.choice import MAX_PER_CATEGORY
from jobs.explanation.table import locate_maps, locate_overlays
from jobs.tables.text import make_printable

MAX_NAMED = 3
"""Photos, or categories, that a line names."""


@dataclass
class MapsOutcome:
    """What came of it.

    Attributes:
        explained: photos whose maps were written now.
        known: photos that had theirs from an earlier try.
        problems: key and reason of each photo that could not be explained.
        left_out: reported photos beyond the bound, by category.
    """

    explained: int = 0
    known: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def describe_maps(outcome: MapsOutcome, results: str, run_id: str) -> str:
    """Says in a few lines how many photos have maps, where these are, and which have none."""
    before = f", {outcome.known} by an earlier try" if outcome.known else ""
    lines = [f"maps:   {outcome.explained} photos explained{before}: {locate_overlays(results, run_id)}"]
    if outcome.explained or outcome.known:
        lines.append(f"        listed in {locate_maps(results)}")
    if outcome.problems:
        named = "; ".join(make_printable(f"{uri}: {reason}") for uri, reason in outcome.problems[:MAX_NAMED])
        more = "; ..." if len(outcome.problems) > MAX_NAMED else ""
        lines.append(f"        {len(outcome.problems)} photos could not be explained: {named}{more}")
    if outcome.left_out:
        named = ", ".join(
            f"{make_printable(name)} {count}" for name, count in list(outcome.left_out.items())[:MAX_NAMED]
        )
        more = ", ..." if len(outcome.left_out) > MAX_NAMED else ""
        lines.append(
            f"        {sum(outcome.left_out.values())} anomalies beyond the {MAX_PER_CATEGORY} of a category are not "
            f"explained: {named}{more}"
        )
    return "\n".join(lines)
