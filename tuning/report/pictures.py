"""Pictures of a search: where which attention helped, and what a point of AUROC costs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuning.report.analysis import Placement, find_pareto_front, select_finished
from tuning.trials.records import TrialRecord


def draw_placements(placements: Sequence[Placement], *, stages: Sequence[str], objective: str) -> bytes:
    """Draws stages along the network against kinds of attention, coloured by the difference they made; a PNG.

    Raises:
        ImportError: matplotlib, the extra ``report``, is not installed.
    """
    figure = new_figure(7.2, 3.4)
    kinds = sorted({one.kind for one in placements}) or ["none tried"]
    cells = np.full((len(kinds), len(stages)), np.nan)
    panel = figure.subplots()
    for one in placements:
        row, column = kinds.index(one.kind), stages.index(one.stage)
        cells[row, column] = 100 * one.difference
        panel.text(column, row, f"{100 * one.difference:+.1f}\n{one.trials} trials", ha="center", va="center", size=8)
    limit = max(1.0, float(np.nanmax(np.abs(cells)))) if placements else 1.0
    image = panel.imshow(cells, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    panel.set(xticks=range(len(stages)), yticks=range(len(kinds)), title="Attention after a stage against none there")
    panel.set_xticklabels(stages)
    panel.set_yticklabels(kinds)
    figure.colorbar(image, label=f"difference of mean {objective}, x 100")
    return encode_png(figure)


def draw_cost_front(records: Mapping[int, TrialRecord], *, objective: str) -> bytes:
    """Draws the objective of every finished trial against its cost, presets by name, the Pareto front; a PNG.

    Raises:
        ImportError: matplotlib, the extra ``report``, is not installed.
    """
    figure = new_figure(7.2, 4.4)
    panel = figure.subplots()
    done = select_finished(records, objective=objective)
    points = [(float(one.metrics["gflop"] or 0), float(one.metrics[objective] or 0)) for one in done]
    panel.scatter(*zip(*points, strict=True), s=16, color="tab:blue", alpha=0.6, label="trials")
    front = find_pareto_front(points)
    panel.step(*zip(*front, strict=True), where="post", color="tab:red", label="Pareto front")
    for record, (cost, value) in zip(done, points, strict=True):
        if record.preset:
            panel.annotate(record.preset, (cost, value), size=7, xytext=(4, 4), textcoords="offset points")
    panel.set(xscale="log", xlabel="GFLOP per photo scored", ylabel=objective, title="What a better detector costs")
    panel.legend(fontsize="small")
    return encode_png(figure)


def new_figure(width_inch: float, height_inch: float) -> Any:
    """Makes an empty figure."""
    from matplotlib.figure import Figure  # of an extra; not pyplot, which keeps figures and looks for a display

    return Figure(figsize=(width_inch, height_inch), dpi=120, layout="constrained")


def encode_png(figure: Any) -> bytes:
    """Encodes a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
