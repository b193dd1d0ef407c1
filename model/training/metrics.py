"""The metrics of one epoch of training, and the error of a training that diverges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model.training.collapse_guard import FeatureHealth


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch did; the same on every worker but for the time it took.

    Attributes:
        epoch: from 1 to OptimizerConfig.epochs; 0 is the attention pretext, whose loss is another one.
        loss: mean negative log-likelihood over all views, in nats per dimension of the scaled features.
        validation_loss: the same of held-out photos, without dropout; None without such photos.
        seconds: wall time.
        views_per_s: rotated views per second, of all workers.
        health: attended features against plain ones.
    """

    epoch: int
    loss: float
    validation_loss: float | None
    seconds: float
    views_per_s: float
    health: FeatureHealth

    def to_json(self) -> dict[str, object]:
        """Returns a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EpochMetrics:
        """Reads what `to_json` made."""
        return cls(**{**row, "health": FeatureHealth(**row["health"])})


class DivergenceError(RuntimeError):
    """The loss or a weight is not finite; the detector is worthless and must not be saved.

    Attributes:
        epoch: the epoch it was found in, from 1; 0 is the attention pretext.
        loss: mean loss of that epoch, finite if only a weight is not.
    """

    def __init__(self, epoch: int, loss: float, *, learning_rate: float) -> None:
        """Says where it happened and what to change."""
        what = f"the mean loss is {loss}" if not math.isfinite(loss) else f"a weight is not finite (loss {loss:.4g})"
        super().__init__(
            f"training diverged in epoch {epoch}: {what}; lower {'pretext.' if epoch == 0 else ''}learning_rate "
            f"(now {learning_rate:g}) or set feature_scaling to global or channel"
        )
        self.epoch = epoch
        self.loss = loss
