"""The picture of the benchmark against peers: how well each detector finds defects, against what a photo costs."""

from __future__ import annotations

import io
import statistics
from collections.abc import Collection, Mapping
from typing import Any

MARKERS = {"ours": ("o", "tab:blue"), "anomalib": ("s", "tab:gray")}
"""Side -> marker and colour."""
_SALT = "attentdiffernet"
"""Salt of the names in an SVG, so that equal figures give equal files."""


def list_points(contestants: Mapping[str, Mapping[str, Any]], confirm: Collection[str]) -> list[dict[str, Any]]:
    """Lists what is drawn: contestants with an AUROC, in their order.

    Args:
        contestants: name -> its metrics, as `summarize_passes` gives them.
        confirm: data sets that are left out of the mean.

    Returns:
        name, side, cpu_ms (of a photo) and auroc (mean over categories of the mean over seeds, in %) of each.
    """
    points = []
    for name, metrics in contestants.items():
        counted = [
            statistics.mean(found)
            for category, found in (metrics["auroc"] or {}).items()
            if category.split("/")[0] not in confirm
        ]
        if counted:
            cost = {"cpu_ms": metrics["cpu_ms_per_photo"], "auroc": 100 * statistics.mean(counted)}
            points.append({"name": name, "side": metrics["side"], **cost})
    return points


def draw_picture(contestants: Mapping[str, Mapping[str, Any]], *, confirm: Collection[str]) -> bytes:
    """Draws mean AUROC against CPU milliseconds a photo, which is a logarithmic axis; returns an SVG.

    Args:
        contestants: see `list_points`.
        confirm: see `list_points`.

    Raises:
        ImportError: matplotlib, the extra ``report``, is not installed.
    """
    # An extra that few have. Not pyplot, which keeps figures and looks for a display.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    panel = figure.subplots()
    for point in list_points(contestants, confirm):
        marker, colour = MARKERS[point["side"]]
        panel.scatter(point["cpu_ms"], point["auroc"], marker=marker, color=colour, s=48)
        at = point["cpu_ms"], point["auroc"]
        panel.annotate(point["name"], at, xytext=(6, 5), textcoords="offset points", fontsize="small")
    panel.set(xlabel="CPU ms a photo, from JPEG file to score", ylabel="AUROC, mean over data sets, in %", xscale="log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.margins(x=0.4, y=0.15)  # room for the names
    panel.grid(alpha=0.3)
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
