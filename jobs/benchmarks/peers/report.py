"""Measured passes as metrics: speed and AUROC of each contestant, ours against each peer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence, Set
from typing import Any

from jobs.benchmarks.peers.measurement import Contestant, Fitted, Pass


def summarize_passes(
    contestants: Sequence[Contestant],
    fitted: Mapping[str, Fitted],
    passes: Mapping[str, Sequence[Pass]],
    *,
    photos: int,
) -> dict[str, Any]:
    """Summarizes speed and AUROC of each contestant, and compares ours with each peer.

    Args:
        contestants: of both sides.
        fitted: what `fit_first` gave and `find_defects` added to.
        passes: what `time_all` gave.
        photos: in one pass.

    Returns:
        ``contestants`` and ``ratios``, as JSON. Ratios are medians over passes that ran next to each other.
    """
    return {
        "contestants": {
            one.name: {
                "side": one.side,
                **one.about,
                **summarize_contestant(fitted[one.name], passes[one.name], photos),
            }
            for one in contestants
        },
        "ratios": [
            compare_contestants(ours.name, peer.name, fitted, passes)
            for ours in contestants
            if ours.side == "ours"
            for peer in contestants
            if peer.side == "anomalib"
        ],
    }


def summarize_contestant(fitted: Fitted, passes: Sequence[Pass], photos: int) -> dict[str, Any]:
    """Returns a contestant's speed, the median of its passes, its AUROC by category and its failures."""
    cpu_s = statistics.median(one.cpu_s for one in passes) / photos
    wall_s = statistics.median(one.wall_s for one in passes) / photos
    return {
        "images_per_cpu_s": 1 / cpu_s,
        "images_per_wall_s": 1 / wall_s,
        "cpu_ms_per_photo": 1000 * cpu_s,
        "cpu_s_of_passes": [one.cpu_s for one in passes],
        "wall_s_of_passes": [one.wall_s for one in passes],
        "fit_cpu_s": fitted.fit_cpu_s,
        "auroc": fitted.auroc or None,
        "failures": fitted.failures,
        "mean_auroc": compute_mean_auroc(fitted, fitted.auroc.keys()),
    }


def compute_mean_auroc(fitted: Fitted, categories: Set[str]) -> float | None:
    """Returns the mean over categories of the mean over seeds; None for no categories."""
    if not categories:
        return None
    return statistics.mean(statistics.mean(fitted.auroc[category]) for category in categories)


def compare_contestants(
    ours: str, peer: str, fitted: Mapping[str, Fitted], passes: Mapping[str, Sequence[Pass]]
) -> dict[str, Any]:
    """Returns how many times as fast ours is as the peer, and the difference of mean AUROC on their categories."""
    pairs = list(zip(passes[peer], passes[ours], strict=True))
    both = fitted[ours].auroc.keys() & fitted[peer].auroc.keys()
    mine, theirs = compute_mean_auroc(fitted[ours], both), compute_mean_auroc(fitted[peer], both)
    difference = None if mine is None or theirs is None else mine - theirs
    return {
        "ours": ours,
        "peer": peer,
        "cpu_ratio": statistics.median(slow.cpu_s / fast.cpu_s for slow, fast in pairs),
        "wall_ratio": statistics.median(slow.wall_s / fast.wall_s for slow, fast in pairs),
        "auroc_difference": difference,
        "auroc_categories": sorted(both),
        "at_equal_auroc": None if difference is None else difference >= 0,
    }
