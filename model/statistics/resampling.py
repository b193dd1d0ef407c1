"""How sure a metric is: intervals over seeds, and bootstrap over photos and seeds (Efron & Tibshirani 1993).

Two sources of chance are kept apart. Photos are resampled within the flawless and within the defective ones
(stratified). The seeds of training are resampled as a whole (hierarchical).

A bootstrap over K values has a variance that is too small by (K - 1) / K, which matters for the three to five seeds
that one can afford. The interval over seeds (Student's t) knows nothing of photos, and is the cautious companion.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.statistics.evaluation import Labels, check_scores

RESAMPLES = 2000
CONFIDENCE = 0.95
_BLOCK_CELLS = 4_000_000  # resamples x photos in memory at once: some 150 MB

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval; the ends are None where there is nothing to estimate them from."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two variants: AUROC of the second minus that of the first, averaged over categories.

    Attributes:
        mean: on the photos and seeds as they are.
        low: lower end of the percentile interval.
        high: upper end.
        share_not_above: share of the resamples whose difference is <= 0, in [0, 1]: small means the second is better.
        wide_low: as ``low``, where the categories are drawn anew as well; None for a single category.
        wide_high: its upper end.
    """

    mean: float
    low: float
    high: float
    share_not_above: float
    wide_low: float | None = None
    wide_high: float | None = None


@dataclass(frozen=True)
class PairedScores:
    """Scores of two variants on the same photos of one category, seed by seed.

    Attributes:
        labels: (N,) True or 1 is defective.
        first: (K, N) scores of the first variant, a row per seed.
        second: (K, N) of the second; row k of both was trained with the same seed.
    """

    labels: Labels
    first: _Floats
    second: _Floats


def estimate_seed_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Estimates a metric's mean and Student's t interval over seeds: mean +- t * s / sqrt(K), K - 1 degrees of freedom.

    Args:
        values: the metric of each of K >= 1 seeds. One seed has no spread, so its interval has no ends.
        confidence: in (0, 1).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("an interval over seeds needs at least one value, got none")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap_auroc(
    labels: Labels, scores: _Floats, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """Estimates AUROC's mean over seeds and its percentile interval, by bootstrap over photos and seeds.

    Args:
        labels: (N,) True or 1 is defective.
        scores: (K, N), a row per seed; with one row only photos are resampled.
        seed: of the resampling.
        resamples: number of resamples.
        confidence: in (0, 1).

    Raises:
        ValueError: as ``model.statistics.evaluation.compute_auroc`` does.
    """
    rng = np.random.default_rng(seed)
    (drawn,) = resample_auroc(labels, [scores], rng=rng, resamples=resamples)
    return Interval(float(average_auroc(labels, scores)), *_take_percentiles(drawn, confidence))


def bootstrap_difference(
    categories: Sequence[PairedScores], *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Difference:
    """Compares two variants by bootstrap over photos and seeds, the same resample for both.

    Within a resample each category draws its photos and its seeds anew; both variants see the same drawn photos and
    the same drawn seeds, so what is easy for both cancels. The interval is about these categories. The wide one, which
    draws as many categories anew, is about others like them, as far as a handful of categories can tell.

    Args:
        categories: one entry per category, at least one.
        seed: of the resampling.
        resamples: number of resamples.
        confidence: of the percentile interval, in (0, 1).

    Raises:
        ValueError: no category, other shapes, or as ``model.statistics.evaluation.compute_auroc`` does.
    """
    if not categories:
        raise ValueError("a paired comparison needs at least one category with both variants, got none")
    rng = np.random.default_rng(seed)
    observed, drawn = [], []
    for pair in categories:
        if pair.first.shape != pair.second.shape:
            raise ValueError(
                f"a paired comparison needs scores of one shape, got {pair.first.shape} and {pair.second.shape}"
            )
        observed.append(average_auroc(pair.labels, pair.second) - average_auroc(pair.labels, pair.first))
        first, second = resample_auroc(pair.labels, [pair.first, pair.second], rng=rng, resamples=resamples)
        drawn.append(second - first)
    differences = np.mean(drawn, axis=0)
    low, high = _take_percentiles(differences, confidence)
    wide = (None, None) if len(drawn) < 2 else _take_percentiles(_draw_categories(np.array(drawn), rng), confidence)
    return Difference(float(np.mean(observed)), low, high, float((differences <= 0).mean()), *wide)


def _draw_categories(differences: _Floats, rng: np.random.Generator) -> _Floats:
    """Averages differences (C, R) over C categories, drawn anew for each of R resamples."""
    count, resamples = differences.shape
    averaged: _Floats = differences[rng.integers(count, size=(resamples, count)), np.arange(resamples)[:, None]].mean(1)
    return averaged


def compute_weighted_auroc(labels: Labels, scores: _Floats, *, counts: npt.NDArray[np.integer]) -> _Floats:
    """Computes the AUROC of many resamples at once, by ranks.

    The same as ``model.statistics.evaluation.compute_auroc`` gives for each, with photos repeated.

    Args:
        labels: (N,) True or 1 is defective.
        scores: (N,) finite.
        counts: (R, N) how often each photo is in each resample; every resample has photos of both classes.

    Returns:
        (R,) in [0, 1].

    Raises:
        ValueError: as ``model.statistics.evaluation.compute_auroc`` does.
    """
    is_defective, ranked = check_scores(labels, scores)
    order = np.argsort(ranked)
    ordered, is_defective = ranked[order], is_defective[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of each run of equal scores
    repeated = counts[:, order]
    flawless = np.add.reduceat(np.where(is_defective, 0, repeated), starts, axis=1)
    defective = np.add.reduceat(np.where(is_defective, repeated, 0), starts, axis=1)
    below = flawless.cumsum(1) - flawless / 2
    wins: _Floats = (below * defective).sum(1) / (flawless.sum(1) * defective.sum(1))
    return wins


def resample_auroc(
    labels: Labels, variants: Sequence[_Floats], *, rng: np.random.Generator, resamples: int
) -> list[_Floats]:
    """Returns for each variant's scores (K, N) the mean AUROC over K drawn seeds on drawn photos, (resamples,)."""
    blocks = [
        _resample_block(labels, variants, rng=rng, resamples=size)
        for size in _split_into_blocks(len(labels), resamples)
    ]
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def _resample_block(
    labels: Labels, variants: Sequence[_Floats], *, rng: np.random.Generator, resamples: int
) -> list[_Floats]:
    counts = draw_photo_counts(np.asarray(labels).astype(bool), rng=rng, resamples=resamples)
    seeds = len(variants[0])
    drawn = rng.integers(seeds, size=(resamples, seeds))
    rows = np.arange(resamples)[:, None]
    by_seed = [
        np.stack([compute_weighted_auroc(labels, row, counts=counts) for row in scores], axis=1) for scores in variants
    ]
    return [values[rows, drawn].mean(1) for values in by_seed]


def _split_into_blocks(photos: int, resamples: int) -> Iterator[int]:
    largest = max(1, _BLOCK_CELLS // max(1, photos))
    for start in range(0, resamples, largest):
        yield min(largest, resamples - start)


def draw_photo_counts(
    is_defective: npt.NDArray[np.bool_], *, rng: np.random.Generator, resamples: int
) -> npt.NDArray[np.int64]:
    """Draws how often each photo is in each resample, (resamples, N), with as many of each class as there are."""
    counts = np.zeros((resamples, is_defective.size), np.int64)
    for members in (np.flatnonzero(~is_defective), np.flatnonzero(is_defective)):
        if members.size:
            counts[:, members] = rng.multinomial(members.size, np.full(members.size, 1 / members.size), size=resamples)
    return counts


def average_auroc(labels: Labels, scores: _Floats) -> float:
    """Averages the AUROC of scores (K, N) over the K seeds, on the photos as they are."""
    once = np.ones((1, len(labels)), np.int64)
    return float(np.mean([compute_weighted_auroc(labels, row, counts=once) for row in scores]))


def _take_percentiles(values: _Floats, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
