"""How well scores separate flawless photos from defective ones, on labelled photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

Labels = npt.NDArray[np.bool_ | np.integer]
"""(N,) True or 1 is defective, False or 0 is flawless."""
Scores = npt.NDArray[np.floating]
"""(N,) higher is more anomalous."""

FALSE_ALARM_RATES = (0.01, 0.05)
"""Rates at which recall is reported."""


@dataclass(frozen=True)
class DetectionMetrics:
    """Metrics of one detector on one set of labelled photos.

    Attributes:
        flawless: number of flawless photos.
        defective: number of defective photos.
        auroc: see ``compute_auroc``.
        aupr: see ``compute_aupr``.
        recall_at_1_percent: share of the defective photos found at 1 % false alarms, see ``compute_recall``.
        recall_at_5_percent: the same at 5 %.
    """

    flawless: int
    defective: int
    auroc: float
    aupr: float
    recall_at_1_percent: float
    recall_at_5_percent: float


def compute_metrics(labels: Labels, scores: Scores) -> DetectionMetrics:
    """Computes all metrics at once.

    Args:
        labels: (N,) True or 1 is defective.
        scores: (N,) higher is more anomalous.

    Raises:
        ValueError: as ``compute_auroc`` does.
    """
    is_defective, _ = check_scores(labels, scores)
    low, high = FALSE_ALARM_RATES
    return DetectionMetrics(
        flawless=int((~is_defective).sum()),
        defective=int(is_defective.sum()),
        auroc=compute_auroc(labels, scores),
        aupr=compute_aupr(labels, scores),
        recall_at_1_percent=compute_recall(labels, scores, false_alarm_rate=low),
        recall_at_5_percent=compute_recall(labels, scores, false_alarm_rate=high),
    )


def compute_auroc(labels: Labels, scores: Scores) -> float:
    """Computes the area under the ROC curve: the chance that a defective photo scores above a flawless one.

    Ties count half. It is in [0, 1]; the tables of arXiv 2401.08686 and arXiv 2008.12577 have it in percent.

    Args:
        labels: (N,) True or 1 is defective, False or 0 is flawless.
        scores: (N,) higher is more anomalous.

    Raises:
        ValueError: shapes differ, a label is not 0 or 1, a class is absent, or a score is NaN or infinite.
    """
    return float(roc_auc_score(*check_scores(labels, scores)))


def compute_aupr(labels: Labels, scores: Scores) -> float:
    """Computes the area under the precision-recall curve as average precision, in (0, 1]; defective photos are sought.

    Average precision is the mean of the precision over the ranks of the defective photos. A trapezoid would be too high
    (Davis & Goadrich, ICML 2006). It depends on the share of defective photos: a detector without any skill reaches
    just that share.

    Args:
        labels: (N,) True or 1 is defective.
        scores: (N,) higher is more anomalous.

    Raises:
        ValueError: as ``compute_auroc`` does.
    """
    return float(average_precision_score(*check_scores(labels, scores)))


def compute_recall(labels: Labels, scores: Scores, *, false_alarm_rate: float) -> float:
    """Computes the share of defective photos above `find_false_alarm_threshold` of the flawless ones, in [0, 1].

    It is the highest recall on the ROC curve with at most the given false-alarm rate. The threshold is taken from the
    very test photos, so this compares detectors. What a threshold from calibration does on new photos is another
    question.

    Args:
        labels: (N,) True or 1 is defective.
        scores: (N,) higher is more anomalous.
        false_alarm_rate: share of the flawless photos that may be reported, in (0, 1).

    Raises:
        ValueError: as ``compute_auroc`` does, or a rate outside (0, 1).
    """
    is_defective, ranked = check_scores(labels, scores)
    threshold = find_false_alarm_threshold(ranked[~is_defective], false_alarm_rate=false_alarm_rate)
    return float((ranked[is_defective] > threshold).mean())


def find_false_alarm_threshold(flawless: Scores, *, false_alarm_rate: float) -> float:
    """Finds the lowest flawless score above which at most a share ``false_alarm_rate`` of the flawless ones lies.

    Of n photos the floor(rate * n) highest may be reported, so the threshold is the next highest score, and with
    n < 1 / rate the highest of all. A photo is reported if its score is greater; ties with the threshold never are.

    Args:
        flawless: (n,) finite scores of flawless photos, n >= 1.
        false_alarm_rate: in (0, 1).

    Raises:
        ValueError: no scores, or a rate outside (0, 1).
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate must lie between 0 and 1, both excluded, got {false_alarm_rate}")
    if flawless.size == 0:
        raise ValueError("a false-alarm threshold needs at least one flawless photo, got none")
    shares = np.arange(1, flawless.size + 1) / flawless.size  # compared as they are: 0.29 * 100 is below 29
    reportable = int(np.searchsorted(shares, false_alarm_rate, side="right"))
    return float(np.sort(flawless)[flawless.size - 1 - reportable])


def check_scores(labels: Labels, scores: Scores) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Checks labels and scores; returns them as booleans (N,) and float64 (N,).

    Raises:
        ValueError: in one line, shapes that differ, a label that is not 0 or 1, an absent class, a score not finite.
    """
    truth, ranked = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != ranked.shape:
        raise ValueError(f"evaluation needs one label per score, got labels {truth.shape} and scores {ranked.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("evaluation needs labels 0 (flawless) and 1 (defective), got others")
    defective = int(truth.sum())
    if defective in (0, truth.size):
        raise ValueError(
            f"evaluation needs both classes, got {truth.size - defective} flawless and {defective} defective"
        )
    if unranked := int((~np.isfinite(ranked)).sum()):
        raise ValueError(f"evaluation needs finite scores, got {unranked} of {ranked.size} that are NaN or infinite")
    return truth.astype(bool), ranked
