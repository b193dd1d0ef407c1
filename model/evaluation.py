"""How well scores separate flawless photos from defective ones, on labelled photos."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score


def auroc(labels: npt.NDArray[np.bool_ | np.integer], scores: npt.NDArray[np.floating]) -> float:
    """Area under the ROC curve: the chance that a defective photo scores above a flawless one, ties counted half.

    The measure of every table in arXiv 2401.08686 and arXiv 2008.12577, there in percent, here in [0, 1].

    Args:
        labels: (N,) True or 1 is defective, False or 0 is flawless.
        scores: (N,) higher is more anomalous.

    Raises:
        ValueError: shapes differ, a label is not 0 or 1, a class is absent, or a score is NaN.
    """
    truth, ranked = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != ranked.shape:
        raise ValueError(f"AUROC needs one label per score, got labels {truth.shape} and scores {ranked.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("AUROC needs labels 0 (flawless) and 1 (defective), got others")
    defective = int(truth.sum())
    if defective in (0, truth.size):
        raise ValueError(f"AUROC needs both classes, got {truth.size - defective} flawless and {defective} defective")
    if np.isnan(ranked).any():
        raise ValueError(f"AUROC needs scores with a rank, got {int(np.isnan(ranked).sum())} NaN of {ranked.size}")
    return float(roc_auc_score(truth.astype(bool), ranked))
