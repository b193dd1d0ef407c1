"""Ray Tune's callback for MLflow, less what it adds. A file of its own, for to import it takes 1.6 s of CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback


class MLflowRuns(MLflowLoggerCallback):
    """Ray's callback, which logs all of the configuration with every report, as metrics: here only metrics are."""

    def __init__(self, metrics: Sequence[str], **named: Any) -> None:
        """Logs to where MLflow's own variables say.

        Args:
            metrics: names of what is logged of a trial.
            named: arguments of Ray's.
        """
        super().__init__(**named)
        self._kept = {*metrics, "training_iteration"}  # the latter is the step

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """See Ray's."""
        kept = {name: value for name, value in result.items() if name in self._kept}
        super().log_trial_result(iteration, trial, kept)
