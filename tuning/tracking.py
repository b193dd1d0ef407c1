"""Trials in MLflow or Weights & Biases as well, for those who have one; the extra ``tracking`` installs clients."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from jobs.errors import RequestError
from tuning.search_config import SearchConfig


def check_trackers(config: SearchConfig) -> None:
    """Refuses a tracker whose client is not installed.

    Raises:
        RequestError: it is not; says what to install.
    """
    if missing := [name for name in config.trackers if find_spec(name) is None]:
        raise RequestError(
            f"--trackers {', '.join(missing)}: not installed here, install attentdiffernet-ray[tracking] or leave it "
            "out"
        )


def tracking_callbacks(config: SearchConfig) -> list[Any]:
    """Ray Tune's own callbacks; where they log to is said by MLFLOW_TRACKING_URI, and by WANDB_API_KEY and the like."""
    project = f"attentdiffernet-{config.category}"
    found: list[Any] = []
    if "mlflow" in config.trackers:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        found.append(MLflowLoggerCallback(experiment_name=project))
    if "wandb" in config.trackers:
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=project))
    return found
