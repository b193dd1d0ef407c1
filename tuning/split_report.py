"""What the split of the photos is good for, in words, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.figures import FLAWLESS
from model.sample_size import auroc_half_width
from tuning.split import Split

_EXPECTED = (0.7, 0.9)
_SYNTHETIC_WARNING = (
    "warning: AUROC on synthetic defects is a weak guide: its rank correlation with the real gain was 0.22 in our study"
)
_HANDFULS = (5, 10, 20, 50)


def split_lines(split: Split, objective: str) -> list[str]:
    """Several lines for a person.

    Args:
        split: of the search.
        objective: what trials are judged by.
    """
    warnings = [_SYNTHETIC_WARNING] if objective == "synthetic_auroc" else []
    if not warnings and objective != "auroc":
        warnings = [f"warning: {objective} is a guess: no guide without labels has been shown to follow AUROC"]
    return [*_lines(split), *warnings]


def _lines(split: Split) -> Iterator[str]:
    counts = split.validation_counts
    where = "a share of test/, by the hash of the key" if split.is_carved else "validation/"
    yield (
        f"{len(split.train)} flawless training photos; {sum(counts.values())} validation photos ({where}), "
        f"{split.defects} of them defective; {sum(split.test.counts.values())} test photos, sealed "
        "until the winner stands"
    )
    flawless = counts[FLAWLESS] or max(1, len(split.train) // 5)
    if split.defects:
        yield f"AUROC on these validation photos is known to {_widths(flawless, split.defects)} (95 %, one detector)"
    else:
        handfuls = "; ".join(f"{count} defects: {_widths(flawless, count)}" for count in _HANDFULS)
        yield f"no validation defects: trials are judged without labels. A handful would do: {handfuls}"


def _widths(flawless: int, defective: int) -> str:
    return ", ".join(
        f"+-{100 * auroc_half_width(auroc, flawless=flawless, defective=defective):.0f} points at {auroc:.1f}"
        for auroc in _EXPECTED
    )
