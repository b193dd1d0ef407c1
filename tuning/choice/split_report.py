"""Says in words, before anything is trained, what the split of the photos is good for."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.archive.mvtec import FLAWLESS
from model.statistics.groups import count_groups
from model.statistics.sample_size import estimate_auroc_half_width, estimate_auroc_standard_error
from tuning.choice.confirmed import CONFIRMED
from tuning.choice.split import Split

_EXPECTED = (0.7, 0.9)
_SYNTHETIC_WARNING = (
    "warning: AUROC on synthetic defects is a weak sign: its rank correlation with the real gain was 0.22 (145 runs)"
)
_HANDFULS = (5, 10, 20, 50)


def describe_split(split: Split, objective: str) -> list[str]:
    """Describes the split in several lines for a person.

    Args:
        split: of the search.
        objective: what trials are judged by.
    """
    warnings = [_SYNTHETIC_WARNING] if objective == "synthetic_auroc" else []
    if not warnings and objective != "auroc":
        warnings = [f"warning: {objective} is a guess: no label-free metric has been shown to follow AUROC"]
    return [*describe_photos(split), *warnings]


def describe_photos(split: Split) -> Iterator[str]:
    """Yields how many photos there are and how well an AUROC on them is known."""
    counts = split.validation_counts
    where = "a share of test/, by the hash of the key" if split.is_share_of_test else "validation/"
    if counts[CONFIRMED]:
        where = f"{counts[CONFIRMED]} confirmed by verdicts" + (", others of validation/" if len(counts) > 1 else "")
    yield (
        f"{len(split.train)} flawless training photos in {count_groups(split.groups)} groups; "
        f"{sum(counts.values())} validation photos ({where}), {split.defects} of them defective; "
        f"{sum(split.test.counts.values())} test photos, sealed until the winner stands"
    )
    flawless = count_flawless(split)
    if split.defects:
        widths = format_widths(flawless, split.defects)
        yield f"AUROC on these validation photos is known to {widths} (95 %, one detector)"
    else:
        handfuls = "; ".join(f"{count} defects: {format_widths(flawless, count)}" for count in _HANDFULS)
        yield f"no validation defects: trials are judged without labels. A handful would do: {handfuls}"


def estimate_standard_error(split: Split, auroc: float) -> float:
    """Estimates the standard error of a measured validation AUROC.

    One of 1 is taken for half a pair of photos less, one of 0 for half a pair more.
    """
    flawless = count_flawless(split)
    half_pair = 0.5 / (flawless * split.defects)
    return estimate_auroc_standard_error(
        min(max(auroc, half_pair), 1 - half_pair), flawless=flawless, defective=split.defects
    )


def count_flawless(split: Split) -> int:
    """Counts flawless validation photos; if there are none, a fifth of the training photos, held out, stands in."""
    return split.validation_counts[FLAWLESS] or max(1, len(split.train) // 5)


def format_widths(flawless: int, defective: int) -> str:
    """Formats the half-widths of 95 % intervals at a low and at a high AUROC, in points."""
    return ", ".join(
        f"+-{100 * estimate_auroc_half_width(auroc, flawless=flawless, defective=defective):.0f} points at {auroc:.1f}"
        for auroc in _EXPECTED
    )
