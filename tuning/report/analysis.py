"""Analysis of the trials: which dimension matters, which attention helps where, which label-free metric to trust."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.importance import get_param_importances

from tuning.config import LABEL_FREE_METRICS
from tuning.space.space import NONE
from tuning.trials.judge import correlate_ranks
from tuning.trials.records import TrialRecord
from tuning.trials.study import rebuild_study

MIN_TRIALS = 8
"""With fewer, nothing is analyzed."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Importance:
    """How much of the objective's variance a dimension explains among the trials that have it (fANOVA), in [0, 1]."""

    dimension: str
    share: float
    trials: int


@dataclass(frozen=True)
class MetricCorrelation:
    """Rank correlation of a metric with the real AUROC over finished trials, and its 95 % bootstrap interval."""

    name: str
    correlation: float
    low: float
    high: float
    trials: int


@dataclass(frozen=True)
class Placement:
    """Mean objective of the trials with ``kind`` after ``stage``, minus that of trials with nothing there.

    What else differs between the two groups is not taken out: a hint, no proof.
    """

    stage: str
    kind: str
    difference: float
    trials: int


def select_finished(records: Mapping[int, TrialRecord], *, objective: str) -> list[TrialRecord]:
    """Selects the trials that ran to the end, each configuration once."""
    done = [one for one in records.values() if one.status == "done" and one.metrics.get(objective) is not None]
    return [one for one in done if one.copy_of is None]


def compute_importances(records: Mapping[int, TrialRecord], *, objective: str) -> list[Importance]:
    """Computes Optuna's importance of each dimension, the most important first.

    A dimension that not every trial has is evaluated beside those that all have, on the trials that have it.
    """
    done = select_finished(records, objective=objective)
    if len(done) < MIN_TRIALS:
        return []
    numbered = {position: record.model_copy(update={"number": position}) for position, record in enumerate(done)}
    study = rebuild_study([], numbered, {}, objectives=[objective])
    everywhere = sorted(set.intersection(*(set(one.parameters) for one in done)))
    found = []
    for name in sorted({name for one in done for name in one.parameters}):
        having = [one for one in done if name in one.parameters]
        if len(having) < MIN_TRIALS or len({str(one.parameters[name]) for one in having}) < 2:
            continue
        asked = everywhere if name in everywhere else [*everywhere, name]
        shares = get_param_importances(study, params=asked)
        found.append(Importance(name, float(shares[name]), len(having)))
    return sorted(found, key=lambda one: -one.share)


def correlate_label_free(records: Mapping[int, TrialRecord]) -> list[MetricCorrelation]:
    """Correlates each label-free metric with the AUROC on labelled validation photos; empty without labels."""
    done = select_finished(records, objective="auroc")
    found = []
    for name in LABEL_FREE_METRICS:
        pairs = [(one.metrics[name], one.metrics["auroc"]) for one in done if one.metrics.get(name) is not None]
        if len(pairs) >= MIN_TRIALS:
            found.append(correlate_metric(name, np.array(pairs, dtype=np.float64)))
    return found


def correlate_metric(name: str, pairs: np.ndarray) -> MetricCorrelation:
    """Correlates the pairs (N, 2) of a metric and the AUROC, with a bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [pairs[rng.integers(len(pairs), size=len(pairs))] for _ in range(_RESAMPLES)]
    low, high = np.quantile([correlate_ranks(some[:, 0], some[:, 1]) for some in drawn], [0.025, 0.975])
    return MetricCorrelation(name, correlate_ranks(pairs[:, 0], pairs[:, 1]), float(low), float(high), len(pairs))


def compare_placements(records: Mapping[int, TrialRecord], *, objective: str, stages: Sequence[str]) -> list[Placement]:
    """Compares each kind of attention after each stage with none there, where trials have both."""
    done = select_finished(records, objective=objective)
    found = []
    for stage in stages:
        groups: dict[str, list[float]] = {}
        for record in done:
            block = record.detector["attention"].get(stage)
            groups.setdefault(block["kind"] if block else NONE, []).append(float(record.metrics[objective] or 0))
        without = groups.pop(NONE, [])
        found += [
            Placement(stage, kind, float(np.mean(values) - np.mean(without)), len(values))
            for kind, values in sorted(groups.items())
            if without
        ]
    return found


def find_pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Finds the (cost, value) that no other one beats in both, by cost."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda one: (one[0], -one[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front
