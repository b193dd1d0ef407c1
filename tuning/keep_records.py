"""Between Ray Tune and our records: what a trial came to is written the moment that Tune knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from ray import tune

from jobs.pipeline import cause
from jobs.progress import Report
from tuning.records import Started, Status, TrialRecord, write_record
from tuning.trial import EPOCH, OBJECTIVE


class KeepRecords(tune.Callback):
    """Writes the outcome of each trial and tells how far the search is.

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
        figures: Sequence[str],
        epochs: int,
    ) -> None:
        """Keeps the arguments.

        Args:
            results: folder of the search.
            study: of the sampler, which knows what it chose from.
            finished: added to.
            report: of a running Progress.
            figures: names of those that records keep.
            epochs: of a trial that is not stopped.
        """
        self.finished = finished
        self._results, self._study, self._report, self._figures, self._epochs = results, study, report, figures, epochs
        self._best = float("-inf")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Tune once a trial has ended or was stopped."""
        result = trial.last_result
        figures = {name: result.get(name) for name in self._figures}
        record = self._record(trial, epochs=result[EPOCH], figures=figures)
        write_record(self._results, record)
        if record.status == "done":
            self.finished.setdefault(record.key, record)
            self._best = max(self._best, result[OBJECTIVE])
        self._report({record.status: 1}, f"trial {record.number}: {result[OBJECTIVE]:.4f}, best {self._best:.4f}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Called by Tune once a trial has failed, whatever the reason."""
        error = trial.get_pickled_error() or trial.get_error()
        reason = "no reason was given" if error is None else cause(error).removeprefix("JobError: ")
        record = self._record(trial, epochs=(trial.last_result or {}).get(EPOCH, 0), figures={}, reason=reason)
        write_record(self._results, record)
        print(f"failed: trial {record.number} ({record.name}): {reason}", flush=True)
        self._report({"failed": 1})

    def _record(
        self, trial: Any, *, epochs: int, figures: dict[str, float | None], reason: str | None = None
    ) -> TrialRecord:
        started = Started.model_validate(trial.config["started"])
        sampled = self._study.get_trials(deepcopy=False)[started.number]
        ended: Status = "done" if epochs >= self._epochs else "stopped"
        return TrialRecord(
            **started.model_dump(exclude={"lost"}),
            name=started.detector["variant"],
            distributions={name: distribution_to_json(kind) for name, kind in sampled.distributions.items()},
            status=ended if reason is None else "failed",
            reason=reason,
            epochs=epochs,
            figures=figures,
            seconds=float((trial.last_result or {}).get("time_total_s", 0.0)),
            copy_of=trial.config["copy_of"],
        )
