"""What the epochs of a training say: the progress line of one, and the metrics that are kept of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model.training.metrics import EpochMetrics


def format_epoch(metrics: EpochMetrics) -> str:
    """Returns the progress line of one epoch."""
    parts = [f"loss {metrics.loss:.4f}"]
    if metrics.validation_loss is not None:
        parts.append(f"validation {metrics.validation_loss:.4f}")
    if metrics.health.gate_mean is not None:
        parts.append(f"gates {metrics.health.gate_mean:.2f}, feature std {metrics.health.std_ratio:.2f} of plain")
    return ", ".join([*parts, f"{metrics.views_per_s:.0f} views/s"])


def find_kept_epoch(epochs: Sequence[EpochMetrics], *, early: bool) -> EpochMetrics:
    """Returns the epoch whose weights the detector has: the last, or with early stopping the best."""
    judged = [epoch for epoch in epochs if epoch.epoch > 0 and epoch.validation_loss is not None]
    return min(judged, key=lambda epoch: (epoch.validation_loss, epoch.epoch)) if early and judged else epochs[-1]


def describe_epochs(epochs: Sequence[EpochMetrics], *, early: bool) -> dict[str, Any]:
    """Returns what metrics.json says of a training's epochs.

    Args:
        epochs: all of them; epoch 0, if any, is the attention's pretext.
        early: whether the training could stop early.
    """
    flow_epochs = [epoch for epoch in epochs if epoch.epoch > 0]
    kept = find_kept_epoch(epochs, early=early)
    return {
        "epochs": len(flow_epochs),
        "kept_epoch": kept.epoch,
        "loss": kept.loss,
        "loss_by_epoch": [epoch.loss for epoch in flow_epochs],
        "validation_loss_by_epoch": [epoch.validation_loss for epoch in flow_epochs],
        "health": kept.to_json()["health"],
        "problems": kept.health.list_problems(),
        "warnings": kept.health.list_warnings(),
        "seconds_by_epoch": [epoch.seconds for epoch in flow_epochs],
        "views_per_s": kept.views_per_s,
    }
