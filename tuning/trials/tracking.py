"""Trials in MLflow or Weights & Biases as well, for those who have one; the extra ``tracking`` installs clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.cluster.trackers import name_project, read_wandb_settings
from tuning.config import SearchConfig


def make_tracking_callbacks(config: SearchConfig, *, metrics: Sequence[str]) -> list[Any]:
    """Makes Ray Tune's own callbacks; they log where the clients' variables say, MLFLOW_* and WANDB_*.

    Args:
        config: of the search.
        metrics: names of what is logged of a trial.
    """
    project = name_project(config.category)
    found: list[Any] = []
    if "mlflow" in config.trackers:
        from tuning.trials.mlflow_runs import MLflowRuns  # of the extra ``tracking``: maybe not installed

        found.append(MLflowRuns(metrics, experiment_name=project))
    if "wandb" in config.trackers:
        from ray.air.integrations.wandb import WandbLoggerCallback  # as above

        found.append(WandbLoggerCallback(project=project, **read_wandb_settings()))
    return found
