"""Ray Tune's callback that writes a trial's record the moment that Tune knows the outcome."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from ray import tune

from jobs.cluster.tally import Report
from jobs.tables.text import make_printable
from tuning.trials.measure import EPOCH, OBJECTIVE
from tuning.trials.records import Status, TrialRecord, TrialStart, write_record


class RecordCallback(tune.Callback):
    """Writes the outcome of each trial and reports how far the search is.

    Attributes:
        finished: key -> record of the trials that ran to the end.
    """

    def __init__(
        self,
        results: str,
        study: optuna.Study,
        finished: dict[str, TrialRecord],
        report: Report,
        *,
        metrics: Sequence[str],
        epochs: int,
    ) -> None:
        """Keeps the arguments.

        Args:
            results: folder of the search.
            study: of the sampler, which knows what it chose from.
            finished: added to.
            report: of a running Progress.
            metrics: names of those that records keep.
            epochs: of a trial that is not stopped.
        """
        self.finished = finished
        self._results, self._study, self._report, self._metrics, self._epochs = results, study, report, metrics, epochs
        self._best = float("-inf")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Writes the record of a trial that has ended or was stopped."""
        result = trial.last_result
        metrics = {name: result.get(name) for name in self._metrics}
        record = self._record(trial, epochs=result[EPOCH], metrics=metrics)
        write_record(self._results, record)
        if record.status == "done":
            self.finished.setdefault(record.key, record)
            self._best = max(self._best, result[OBJECTIVE])
        self._report({record.status: 1}, f"trial {record.number}: {result[OBJECTIVE]:.4f}, best {self._best:.4f}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Writes the record of a trial that has failed, whatever the reason."""
        reason = read_failure_reason(trial.error_file)
        record = self._record(trial, epochs=(trial.last_result or {}).get(EPOCH, 0), metrics={}, reason=reason)
        write_record(self._results, record)
        print(f"failed: trial {record.number} ({record.name}): {make_printable(reason)}", flush=True)
        self._report({"failed": 1})

    def _record(
        self, trial: Any, *, epochs: int, metrics: dict[str, float | None], reason: str | None = None
    ) -> TrialRecord:
        started = TrialStart.model_validate(trial.config["started"])
        sampled = self._study.get_trials(deepcopy=False)[started.number]
        ended: Status = "done" if epochs >= self._epochs else "stopped"
        return TrialRecord(
            **started.model_dump(exclude={"lost"}),
            name=started.detector["variant"],
            distributions={name: distribution_to_json(kind) for name, kind in sampled.distributions.items()},
            status=ended if reason is None else "failed",
            reason=reason,
            epochs=epochs,
            metrics=metrics,
            seconds=float((trial.last_result or {}).get("time_total_s", 0.0)),
            copy_of=trial.config["copy_of"],
        )


_RAISED = re.compile(r"^(?:[a-z_]\w*\.)*([A-Z]\w*): (.+)$")
"""The line of a traceback that names the exception, its module left out."""


def read_failure_reason(error_file: str | None) -> str:
    """Reads why a trial failed, one line, from the traceback that Tune keeps in a file of the driver's node.

    Tune has the exception itself in its storage, but only some time after it has told of the failure.
    """
    if error_file is None or not Path(error_file).exists():
        return "Ray Tune gave no reason"
    lines = [line.strip() for line in Path(error_file).read_text(errors="replace").splitlines() if line.strip()]
    raised = [found for line in lines if (found := _RAISED.match(line))]
    if not raised:
        return lines[-1] if lines else "Ray Tune gave no reason"
    kind, message = raised[-1].groups()
    return message if kind == "JobError" else f"{kind}: {message}"
