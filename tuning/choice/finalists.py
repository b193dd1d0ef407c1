"""Who wins: the best trials and the best preset, trained again with several seeds on the same validation photos.

The best of many trials is partly lucky. Seeds that had no part in the search take out the luck of the training. The
luck of the photos stays, so a trial has to lead the best preset by a standard error, the rule by which Breiman et al.
prune trees ("Classification and Regression Trees", 1984, section 3.4.3); only the test set, opened afterwards, tells
how much luck there was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from jobs.cluster.task_pool import FAILED, read_outcomes, run_and_keep
from jobs.errors import JobError
from jobs.storage import uris
from model.config import DetectorConfig, OptimizerConfig
from tuning.config import SearchConfig
from tuning.trials.measure import Metrics, TrainingJob
from tuning.trials.records import TrialRecord
from tuning.trials.run import count_concurrent_trials
from tuning.trials.trial import TrialSettings, run_training

FOLDER = "finalists"


@dataclass(frozen=True)
class Finalist:
    """A trial that was trained again.

    Attributes:
        record: the trial.
        values: the objective, seed by seed; empty if one of them failed.
        reason: why it failed, or None.
    """

    record: TrialRecord
    values: Sequence[float]
    reason: str | None

    @property
    def mean(self) -> float:
        """The mean over seeds; minus infinity where it failed."""
        return float(np.mean(self.values)) if self.values else float("-inf")


def choose_finalists(records: Iterable[TrialRecord], *, objective: str, count: int) -> list[TrialRecord]:
    """Chooses the ``count`` best trials that were not stopped, and the best preset that was not.

    Each configuration once, the best first; ties go to the cheaper one.
    """
    found: dict[str, TrialRecord] = {}
    for record in records:
        if record.status == "done" and record.metrics.get(objective) is not None:
            found.setdefault(record.key, record)
    ranked = sorted(found.values(), key=lambda one: (-(one.metrics[objective] or 0), one.metrics.get("gflop") or 0))
    best_preset = [record for record in ranked if record.preset][:1]
    return ranked[:count] + [record for record in best_preset if record not in ranked[:count]]


def put_winner_first(finalists: Sequence[Finalist], *, margin: Callable[[float], float]) -> tuple[list[Finalist], str]:
    """Puts the best preset before trials that do not lead it by enough.

    Args:
        finalists: the best mean first.
        margin: the lead that is needed over a preset of this mean.

    Returns:
        The finalists, the winner first, and why it is not the best one; empty where it is.
    """
    best = finalists[0]
    preset = next((one for one in finalists if one.record.preset and one.values), None)
    if best.record.preset or preset is None:
        return list(finalists), ""
    lead, needed = best.mean - preset.mean, margin(preset.mean)
    if lead > needed:
        return list(finalists), ""
    said = (
        f"trial {best.record.number} ({best.record.name}) leads preset {preset.record.name} by {lead:.4f}, which may "
        f"be luck (standard error times caution: {needed:.4f}): the preset wins. More labelled photos would tell, or "
        "take --caution 0"
    )
    return [preset, *(one for one in finalists if one is not preset)], said


def run_finalists(config: SearchConfig, records: Mapping[int, TrialRecord], trials: TrialSettings) -> list[Finalist]:
    """Trains the best trials again, or reads what they came to before; returns the best mean first.

    Raises:
        JobError: no trial was good for anything.
    """
    chosen = choose_finalists(records.values(), objective=trials.objective, count=config.finalists)
    if not chosen:
        reasons = sorted({str(record.reason) for record in records.values() if record.reason})
        raise JobError(f"none of {len(records)} trials gave a detector: {'; '.join(reasons[:3]) or 'all were stopped'}")
    seeds = range(config.seed + config.seeds_per_trial, config.seed + config.seeds_per_trial + config.finalist_seeds)
    asked = [FinalistTraining(record, seed) for record in chosen for seed in seeds]
    outcomes = train_all(config, asked, trials)
    found = [
        gather_finalist(record, [outcomes[record.key, seed] for seed in seeds], trials.objective) for record in chosen
    ]
    return sorted(found, key=lambda one: -one.mean)


def gather_finalist(record: TrialRecord, outcomes: Sequence[Mapping[str, Any]], objective: str) -> Finalist:
    """Joins what the seeds of one trial came to; one failed seed fails the finalist."""
    reasons = [str(one[FAILED]) for one in outcomes if FAILED in one]
    if reasons:
        return Finalist(record, [], reasons[0])
    return Finalist(record, [float(one["metrics"][objective]) for one in outcomes], None)


@dataclass(frozen=True)
class FinalistTraining:
    """One training of a finalist."""

    record: TrialRecord
    seed: int

    def __str__(self) -> str:
        """Names the training in messages."""
        return f"trial {self.record.number}, seed {self.seed}"


def train_all(
    config: SearchConfig, asked: Sequence[FinalistTraining], trials: TrialSettings
) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Trains what no earlier run has trained; returns key and seed -> ``metrics`` or ``failed``, of all."""
    units = {uris.join(config.results, FOLDER, f"{one.record.key}.seed{one.seed}.json"): one for one in asked}
    outcomes = read_outcomes(units)
    remote: Any = ray.remote(num_cpus=trials.resources["CPU"], num_gpus=trials.resources.get("GPU", 0))(train_finalist)

    def work(unit: FinalistTraining) -> Mapping[str, Any]:
        outcome: Mapping[str, Any] = ray.get(
            remote.remote(unit.record.detector, unit.record.optimizer, unit.seed, trials)
        )
        return outcome

    outcomes |= run_and_keep(
        {uri: unit for uri, unit in units.items() if uri not in outcomes},
        work,
        at_a_time=count_concurrent_trials(config),
        activity="training finalists",
        noun="training",
    )
    return {(unit.record.key, unit.seed): outcomes[uri] for uri, unit in units.items()}


def train_finalist(
    detector: Mapping[str, Any], optimizer: Mapping[str, Any], seed: int, trials: TrialSettings
) -> dict[str, Metrics]:
    """Trains a finalist once, as a Ray task; returns its ``metrics``.

    Raises:
        JobError: it failed; one line.
    """
    job = TrainingJob(DetectorConfig.model_validate(detector), OptimizerConfig.model_validate(optimizer), [seed])
    return {"metrics": run_training(f"finalist-{seed}", job, trials, lambda epoch, metrics: None)}
