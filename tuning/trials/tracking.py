"""Trials in MLflow or Weights & Biases as well, for those who have one; the extra ``tracking`` installs clients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.errors import RequestError
from tuning.config import SearchConfig

_NO_SERVER = ("offline", "disabled")


def check_trackers(config: SearchConfig) -> None:
    """Checks that the client of every tracker is installed and has its key.

    Raises:
        RequestError: it is not, or has none; says what to do.
    """
    if missing := [name for name in config.trackers if find_spec(name) is None]:
        raise RequestError(
            f"--trackers {', '.join(missing)}: not installed here, install attentdiffernet-ray[tracking] or leave it "
            "out"
        )
    if "wandb" in config.trackers and os.environ.get("WANDB_MODE") not in _NO_SERVER:
        import wandb  # of the extra ``tracking``, as those below: maybe not installed

        if not wandb.api.api_key:
            raise RequestError(
                "--trackers wandb needs a key and found none: set WANDB_API_KEY, run `wandb login`, or set "
                "WANDB_MODE=offline"
            )


def make_tracking_callbacks(config: SearchConfig, *, metrics: Sequence[str]) -> list[Any]:
    """Makes Ray Tune's own callbacks; they log where the clients' variables say, MLFLOW_* and WANDB_*.

    Args:
        config: of the search.
        metrics: names of what is logged of a trial.
    """
    project = f"attentdiffernet-{config.category}"
    found: list[Any] = []
    if "mlflow" in config.trackers:
        from tuning.trials.mlflow_runs import MLflowRuns

        found.append(MLflowRuns(metrics, experiment_name=project))
    if "wandb" in config.trackers:
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=project, **read_wandb_settings()))
    return found


def read_wandb_settings() -> dict[str, Any]:
    """Reads what ``wandb.init`` needs: its actor knows nothing of this process's environment but the key."""
    found: dict[str, Any] = {"dir": str(Path(os.environ.get("WANDB_DIR", ".")).resolve())}
    for name in ("mode", "entity"):
        if value := os.environ.get(f"WANDB_{name.upper()}"):
            found[name] = value
    if server := os.environ.get("WANDB_BASE_URL"):
        found["settings"] = {"base_url": server}
    return found
