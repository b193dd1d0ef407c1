"""What a detector is judged by after some epochs, on features that are there already.

``auroc`` needs labelled validation photos. The other metrics are label-free, they see flawless photos alone:

- ``held_out_gain``: how much likelier held-out photos are under the flow than under a Gaussian of the same features, in
  nats per dimension. Both change alike under a change of units, so shrunk or otherwise scaled features gain nothing,
  and it can be compared between extractors; the collapse guard stops what cheats by losing rank.
- ``shift_agreement``: rank correlation of the scores of held-out photos with those of the same photos, shifted. A score
  that is mostly noise does not survive it.
- ``seed_agreement``: mean rank correlation of the scores between trainings that differ in the seed.
- ``synthetic_auroc``: held-out photos against the same with synthetic defects. A weak sign: over 145 trainings its rank
  correlation with the real gain was 0.22.

Every search with labels measures how far each of them follows the real AUROC (`tuning.report.analysis`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from model.detector import AttentDifferNet
from model.network.flow import compute_nll
from model.statistics.evaluation import compute_auroc
from model.training.held_out_loss import compute_scaling_log_det
from tuning.trials.features import Features

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """The metrics of one training after some epochs.

    Attributes:
        metrics: name -> metric, None where there are no labels.
        held_out: (M,) scores of the held-out photos.
    """

    metrics: dict[str, float | None]
    held_out: Scores


def judge(detector: AttentDifferNet, features: Features, labels: npt.NDArray[np.bool_]) -> Judgement:
    """Judges a detector as it is now.

    Args:
        detector: its flow and feature scaling are what is judged.
        features: of its extractor.
        labels: (K,) of ``features.labelled``, True is defective; held-out photos stand for the flawless ones where none
            of the labelled are.

    Raises:
        ValueError: scores that are not finite.
    """
    names = ("held_out", "shifted", "synthetic", *(["labelled"] if len(labels) else []))
    named = {name: getattr(features, name) for name in names}
    scores = {name: check_finite(name, detector.score_pooled(some).cpu().numpy()) for name, some in named.items()}
    plain = scores["held_out"]
    metrics = {
        "auroc": compute_labelled_auroc(scores["labelled"], labels, held_out=plain) if len(labels) else None,
        "held_out_gain": features.gaussian_loss - compute_held_out_loss(detector, features),
        "shift_agreement": correlate_ranks(plain, scores["shifted"]),
        "synthetic_auroc": compute_auroc(
            np.repeat([False, True], len(plain)), np.concatenate([plain, scores["synthetic"]])
        ),
    }
    return Judgement(metrics, plain)


def check_finite(name: str, scores: Scores) -> Scores:
    """Returns the scores.

    Raises:
        ValueError: some are not finite.
    """
    if bad := int((~np.isfinite(scores)).sum()):
        raise ValueError(f"{bad} of {len(scores)} scores of {name} photos are not finite")
    return scores


def compute_labelled_auroc(scores: Scores, labels: npt.NDArray[np.bool_], *, held_out: Scores) -> float | None:
    """Computes the AUROC of labelled photos, (K,) scores and labels; None without defects.

    Where all are defective, the scores (M,) of the flawless photos that are held out stand against them.
    """
    if not labels.any():
        return None
    if labels.all():
        scores, labels = np.concatenate([scores, held_out]), np.concatenate([labels, np.zeros(len(held_out), bool)])
    return compute_auroc(labels, scores)


@torch.no_grad()
def compute_held_out_loss(detector: AttentDifferNet, features: Features) -> float:
    """Computes the flow's mean negative log-likelihood of the held-out photos.

    Returns:
        Nats per dimension of pooled features, without the constant 0.5 * log(2 pi).
    """
    detector.flow.eval()
    scaled = detector.scale_features(features.held_out.flatten(0, 1))
    loss = compute_nll(*detector.flow(scaled))
    return float(loss) - compute_scaling_log_det(detector) / detector.feature_dim


def correlate_ranks(first: Sequence[float] | Scores, second: Sequence[float] | Scores) -> float:
    """Computes Spearman's rank correlation, in [-1, 1]; 0 where one of them never varies, which says nothing."""
    ranks = [rankdata(values) for values in (first, second)]
    if any(rank.std() == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def average_seeds(judgements: Sequence[Judgement]) -> dict[str, float | None]:
    """Averages the metrics of a trial's trainings, and adds ``seed_agreement`` where there are several."""
    metrics: dict[str, float | None] = {}
    for name in judgements[0].metrics:
        found = [value for one in judgements if (value := one.metrics[name]) is not None]
        metrics[name] = float(np.mean(found)) if found else None
    pairs = [correlate_ranks(one.held_out, other.held_out) for one, other in combinations(judgements, 2)]
    return {**metrics, "seed_agreement": float(np.mean(pairs)) if pairs else None}
