"""Score histograms: flawless against defective photos, a picture per category and variant, a panel per seed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.evaluation.metrics import DetectorKey, PhotoScores, Seed
from model.statistics.evaluation import compute_auroc, find_false_alarm_threshold

MAX_BINS = 40
FALSE_ALARM_RATE = 0.05
"""The rate whose threshold is drawn."""
_PANELS_PER_ROW = 3
_WIDEST_LINEAR = 10.0
_WIDEST = 1000.0
"""Scores of defects reach many times, a flow's even 1e12 times the flawless ones: beyond the first factor over the
median the axis is logarithmic, what lies beyond the second is counted in the last bin."""


def draw_histograms(scored: Mapping[DetectorKey, PhotoScores]) -> Iterator[tuple[str, bytes]]:
    """Draws one picture per category and variant; yields its file name and PNG, in the order of ``scored``.

    Raises:
        ImportError: matplotlib, the extra ``report``, is not installed.
    """
    for category, variant in dict.fromkeys((category, variant) for category, variant, _ in scored):
        seeds = {seed: photos for (of, name, seed), photos in scored.items() if (of, name) == (category, variant)}
        yield f"{category}.{variant}.png", draw_histogram(seeds, title=f"{category}, {variant}")


def draw_histogram(by_seed: Mapping[Seed, PhotoScores], *, title: str) -> bytes:
    """Draws a panel per seed; returns one PNG, 120 dots per inch.

    Args:
        by_seed: at least one seed's scored photos.
        title: above all panels.

    Raises:
        ImportError: matplotlib, the extra ``report``, is not installed.
    """
    # An extra that few have. Not pyplot, which keeps figures and looks for a display.
    from matplotlib.figure import Figure

    columns = min(_PANELS_PER_ROW, len(by_seed))
    rows = math.ceil(len(by_seed) / columns)
    figure = Figure(figsize=(max(6.0, 4.6 * columns), 3.6 * rows + 0.4), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (seed, photos) in zip(panels, by_seed.items(), strict=False):
        draw_panel(panel, photos, title="every seed" if seed is None else f"seed {seed}")
    for panel in panels[len(by_seed) :]:
        panel.set_visible(False)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_panel(panel: Any, photos: PhotoScores, *, title: str) -> None:
    """Draws flawless and defective scores of one detector, with the threshold of its false-alarm rate."""
    flawless, defective = photos.scores[~photos.labels], photos.scores[photos.labels]
    edges, scale = choose_edges(photos.scores)
    for scores, color, name in ((flawless, "tab:blue", "flawless"), (defective, "tab:red", "defective")):
        if len(scores):
            panel.hist(scores.clip(max=edges[-1]), bins=edges, color=color, alpha=0.55, label=f"{name} ({len(scores)})")
    if len(flawless):
        threshold = find_false_alarm_threshold(flawless, false_alarm_rate=FALSE_ALARM_RATE)
        panel.axvline(threshold, color="black", linestyle="--", label=f"{FALSE_ALARM_RATE:.0%} false alarms")
    if len(flawless) and len(defective):
        title += f", AUROC {100 * compute_auroc(photos.labels, photos.scores):.1f} %"
    beyond = int((photos.scores > edges[-1]).sum())
    label = f"score ({beyond} higher ones in the last bin)" if beyond else "score"
    panel.set(title=title, xlabel=label, ylabel="photos", xscale=scale)
    panel.yaxis.get_major_locator().set_params(integer=True)
    panel.legend(fontsize="small")


def choose_edges(scores: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], str]:
    """Returns the edges of B bins, (B + 1,), over scores, (N,), and the scale of the axis on which they are even."""
    low, high, median = float(scores.min()), float(scores.max()), float(np.median(scores))
    bins = min(MAX_BINS, 2 * math.isqrt(len(scores)))
    if low > 0 and high > _WIDEST_LINEAR * median:
        return np.geomspace(low, min(high, _WIDEST * median), bins + 1), "log"
    return np.linspace(low, high if high > low else low + 1, bins + 1), "linear"
