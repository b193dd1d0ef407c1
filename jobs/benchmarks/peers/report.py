"""Measured passes as metrics: speed and AUROC of each contestant, ours against each peer."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

import numpy as np

from jobs.benchmarks.peers.measurement import Contestant, Fitted, Pass
from model.statistics.evaluation import Labels
from model.statistics.resampling import PairedScores, bootstrap_difference


def summarize_passes(
    contestants: Sequence[Contestant],
    fitted: Mapping[str, Fitted],
    passes: Mapping[str, Sequence[Pass]],
    *,
    photos: int,
    labels: Mapping[str, Labels],
    confirm: Collection[str] = (),
) -> dict[str, Any]:
    """Summarizes speed and AUROC of each contestant, and compares ours with each peer.

    Args:
        contestants: of both sides.
        fitted: what `fit_first` gave and `find_defects` added to.
        passes: what `time_all` gave.
        photos: in one pass.
        labels: category -> whether each of its test photos is defective.
        confirm: data sets that are left out of the mean difference and reported by themselves.

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
            compare_contestants(ours.name, peer.name, fitted, passes, labels, confirm)
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
    ours: str,
    peer: str,
    fitted: Mapping[str, Fitted],
    passes: Mapping[str, Sequence[Pass]],
    labels: Mapping[str, Labels],
    confirm: Collection[str],
) -> dict[str, Any]:
    """Returns how many times as fast ours is as the peer, and the differences of AUROC on their categories."""
    pairs = list(zip(passes[peer], passes[ours], strict=True))
    ratios = [slow.cpu_s / fast.cpu_s for slow, fast in pairs]
    both = sorted(fitted[ours].auroc.keys() & fitted[peer].auroc.keys())
    apart = [category for category in both if category.split("/")[0] in confirm]
    counted = [category for category in both if category not in apart]
    found = compare_auroc(fitted[ours], fitted[peer], counted, labels)
    return {
        "ours": ours,
        "peer": peer,
        "cpu_ratio": statistics.median(ratios),
        "cpu_ratio_range": [min(ratios), max(ratios)],
        "wall_ratio": statistics.median(slow.wall_s / fast.wall_s for slow, fast in pairs),
        **found,
        "auroc_categories": counted,
        "confirmed": {category: compare_auroc(fitted[ours], fitted[peer], [category], labels) for category in apart},
        "at_equal_auroc": None if found["auroc_difference"] is None else found["auroc_difference"] >= 0,
    }


def compare_auroc(
    ours: Fitted, peer: Fitted, categories: Sequence[str], labels: Mapping[str, Labels]
) -> dict[str, Any]:
    """Returns the difference of mean AUROC and its 95 % interval, by paired bootstrap over photos and seeds.

    The interval is of the seeds that both could be fitted with; None where a category has none.
    """
    mine, theirs = (compute_mean_auroc(one, set(categories)) for one in (ours, peer))
    if mine is None or theirs is None:
        return {"auroc_difference": None, "auroc_interval": None}
    paired = []
    for category in categories:
        seeds = sorted(ours.scores[category].keys() & peer.scores[category].keys())
        if not seeds:
            return {"auroc_difference": mine - theirs, "auroc_interval": None}
        first, second = (np.stack([one.scores[category][seed] for seed in seeds]) for one in (peer, ours))
        paired.append(PairedScores(labels[category], first, second))
    found = bootstrap_difference(paired)
    return {"auroc_difference": mine - theirs, "auroc_interval": [found.low, found.high]}
