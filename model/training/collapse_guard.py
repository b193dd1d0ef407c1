"""The collapse guard: stops a training whose attention makes the features poorer instead of better.

A likelihood can be raised in ways that do not help to tell defects: by shrinking the features (scale collapse), by
making them depend on each other (rank collapse), by silencing channels, or by stretching the flow to its clamp. All of
it shows against the plain features of the same views.

**It stops only where spread and rank have gone.** Of 145 trainings, collapsed ones had lost both: feature-std ratio
0.02-0.2 and effective-rank ratio down to 0.2, against 0.72-1.01 and 0.94-1.19. A lower rank alone is no collapse: on
insulators (0.684) and on commutators (0.51, 0.44) the scores were better than those without attention. So that is a
warning. The guard stops disasters; it does not predict gains. The mean of the gates tells little, and is only
reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

STD_RATIO = (0.5, 1.5)
RANK_RATIO = (0.8, 1.3)
MAX_DEAD_CHANNELS = 0.13
MAX_SATURATION = 0.5
"""Limits of a training that nothing is said about, see FeatureHealth."""
COLLAPSED_RANK_RATIO = 0.4
"""Below it the rank has gone."""
DEAD_STD = 1e-2
"""A channel is dead below this share of the plain features' mean standard deviation."""


@dataclass(frozen=True)
class FeatureHealth:
    """Attended features against plain ones, on the same views of training photos.

    Attributes:
        std_ratio: mean channel standard deviation, attended / plain.
        rank_ratio: effective rank (see `compute_effective_rank`), attended / plain.
        dead_channels: share of the channels alive in plain features that attention has silenced, 0..1.
        gate_mean: mean over all gates, None without gates.
        saturation: share of the couplings' log-scales at their clamp, 0..1.
    """

    std_ratio: float
    rank_ratio: float
    dead_channels: float
    gate_mean: float | None
    saturation: float

    @property
    def has_collapsed(self) -> bool:
        """Tells whether rank and spread have both gone."""
        return self.rank_ratio < COLLAPSED_RANK_RATIO and not STD_RATIO[0] <= self.std_ratio <= STD_RATIO[1]

    def list_problems(self) -> list[str]:
        """Lists what makes the features worthless, each with its value; empty where they have not collapsed."""
        return self.list_warnings() if self.has_collapsed else []

    def list_warnings(self) -> list[str]:
        """Lists what lies outside the usual limits, each with its value; empty if nothing does."""
        found = []
        if not STD_RATIO[0] <= self.std_ratio <= STD_RATIO[1]:
            found.append(f"feature std is {self.std_ratio:.3g} of the plain one (limits {STD_RATIO[0]}-{STD_RATIO[1]})")
        if not RANK_RATIO[0] <= self.rank_ratio <= RANK_RATIO[1]:
            limits = f"{RANK_RATIO[0]}-{RANK_RATIO[1]}"
            found.append(f"effective rank is {self.rank_ratio:.3g} of the plain one (limits {limits})")
        if self.dead_channels > MAX_DEAD_CHANNELS:
            found.append(f"{self.dead_channels:.0%} of the channels are dead (limit {MAX_DEAD_CHANNELS:.0%})")
        if self.saturation > MAX_SATURATION:
            found.append(
                f"{self.saturation:.0%} of the flow's log-scales are at their clamp (limit {MAX_SATURATION:.0%})"
            )
        return found


class CollapseError(RuntimeError):
    """Attention has collapsed the features; the detector is worthless whatever its loss says.

    Attributes:
        epoch: the epoch it was found after; 0 is the attention pretext.
        health: what was measured.
    """

    def __init__(self, epoch: int, health: FeatureHealth, *, by_pretext: bool = False) -> None:
        """Says what collapsed, whether the pretext did it, and the ways out."""
        is_pretext = by_pretext or epoch == 0
        what = (
            "the pretext of attention collapsed the features"
            if is_pretext
            else f"attention collapsed after epoch {epoch}"
        )
        ways_out = _PRETEXT_WAYS_OUT if is_pretext else _JOINT_WAYS_OUT
        super().__init__(
            f"{what}: {'; '.join(health.list_warnings())}. Ways out: {ways_out}; collapse_guard false lets it run"
        )
        self.epoch = epoch
        self.health = health


_PRETEXT_WAYS_OUT = (
    "a larger pretext.identity_weight, fewer pretext.steps, more training photos, or attention_training frozen"
)
_JOINT_WAYS_OUT = "attention_training pretext, or joint with feature_scaling channel and a lower learning_rate"


def compare_features(*, plain: Tensor, attended: Tensor, gate_mean: float | None, saturation: float) -> FeatureHealth:
    """Compares pooled features (N, D) of the same N >= 2 views without and with attention.

    Raises:
        ValueError: plain features that never vary: there is nothing to compare with.
    """
    plain_std, attended_std = plain.double().std(0, correction=0), attended.double().std(0, correction=0)
    floor = DEAD_STD * plain_std.mean()
    if not floor > 0:
        raise ValueError("the collapse guard needs plain features that vary: are all training photos the same?")
    alive = plain_std > floor
    return FeatureHealth(
        std_ratio=float(attended_std.mean() / plain_std.mean()),
        rank_ratio=compute_effective_rank(attended) / compute_effective_rank(plain),
        dead_channels=float((attended_std[alive] <= floor).double().mean()),
        gate_mean=gate_mean,
        saturation=saturation,
    )


def compute_effective_rank(features: Tensor) -> float:
    """Returns (sum l)^2 / sum l^2 of the eigenvalues l of the correlation matrix of features (N, D), in 1..D.

    This is the participation ratio. It needs no eigenvalues: it is trace^2 / squared Frobenius norm of the smaller Gram
    matrix. Channels that never vary do not count; 1 if none varies.
    """
    centered = features.double() - features.double().mean(0)
    std = centered.square().mean(0).sqrt()
    varying = std > 1e-6 * std.max()
    standardized = centered[:, varying] / std[varying]
    gram = standardized @ standardized.T if len(standardized) < standardized.shape[1] else standardized.T @ standardized
    return float(gram.trace().square() / gram.square().sum()) if varying.any() else 1.0
