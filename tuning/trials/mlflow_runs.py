"""Ray Tune's callback for MLflow, less what it adds. It is a file of its own because MLflow may not be installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback


class MLflowRuns(MLflowLoggerCallback):
    """Logs the metrics alone, where Ray's callback logs the whole configuration with every report as well."""

    def __init__(self, metrics: Sequence[str], **named: Any) -> None:
        """Prepares to log to where MLflow's own variables say.

        Args:
            metrics: names of what is logged of a trial.
            named: arguments of Ray's.
        """
        super().__init__(**named)
        self._kept = {*metrics, "training_iteration"}  # the latter is the step

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Logs one report; see Ray's."""
        kept = {name: value for name, value in result.items() if name in self._kept}
        super().log_trial_result(iteration, trial, kept)
