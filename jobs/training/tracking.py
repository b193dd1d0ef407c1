"""The epochs of a training in MLflow or Weights & Biases, while it runs.

The driver logs, not the workers: it has the clients' variables and keys, and outlives a worker.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from jobs.cluster.tally import Report
from jobs.cluster.trackers import name_project, read_wandb_settings
from jobs.errors import one_line
from jobs.tables.text import make_printable
from jobs.training.units import TrainingUnit

INTERVAL_S = 5.0
_MAX_PARAMETER = 500
"""Letters of a value that MLflow takes as a parameter, in any of its stores."""


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs what an epoch came to."""

    def finish(self, answer: Mapping[str, Any]) -> None:
        """Ends the run; ``answer`` of `jobs.training.worker.run_worker`, empty where there was none."""


class MLflowRun:
    """A run of MLflow, where MLFLOW_TRACKING_URI says."""

    def __init__(self, unit: TrainingUnit) -> None:
        """Goes on with the run of a training that is continued, or starts one."""
        from mlflow import MlflowClient  # of the extra ``tracking``: maybe not installed
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = name_project(unit.config.category)
        experiment = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        mine = f"tags.training_key = '{unit.key}' and attributes.status = 'RUNNING'"
        found = self._client.search_runs([place], mine)
        if found:
            self._run_id = found[0].info.run_id
            return
        run = self._client.create_run(place, run_name=str(unit), tags={"training_key": unit.key})
        self._run_id = run.info.run_id
        asked = {name: str(value)[:_MAX_PARAMETER] for name, value in flatten(describe_unit(unit)).items()}
        self._client.log_batch(self._run_id, params=[Param(name, value) for name, value in asked.items()])

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs an epoch; see `Tracker.log`."""
        for name, value in values.items():
            self._client.log_metric(self._run_id, name, value, step=epoch)

    def finish(self, answer: Mapping[str, Any]) -> None:
        """Ends the run; see `Tracker.finish`."""
        if "detector_id" in answer:
            self._client.set_tag(self._run_id, "detector_id", answer["detector_id"])
        if answer:  # what was interrupted goes on as the same run
            self._client.set_terminated(self._run_id, "FINISHED" if "detector_id" in answer else "FAILED")


class WandbRun:
    """A run of Weights & Biases, where the WANDB_* variables say."""

    def __init__(self, unit: TrainingUnit) -> None:
        """Goes on with the run of a training that is continued, or starts one."""
        import wandb  # of the extra ``tracking``: maybe not installed

        named: dict[str, Any] = {} if unit.config.retrain else {"id": unit.key, "resume": "allow"}
        self._run = wandb.init(
            project=name_project(unit.config.category),
            name=str(unit),
            config=describe_unit(unit),
            reinit="create_new",  # units of a fleet train at the same time
            **named,
            **read_wandb_settings(),
        )

    def log(self, values: Mapping[str, float], *, epoch: int) -> None:
        """Logs an epoch; see `Tracker.log`."""
        self._run.log(dict(values), step=epoch)

    def finish(self, answer: Mapping[str, Any]) -> None:
        """Ends the run; see `Tracker.finish`."""
        if "detector_id" in answer:
            self._run.summary["detector_id"] = answer["detector_id"]
        self._run.finish(exit_code=0 if "detector_id" in answer else 1)


_TRACKERS: Mapping[str, type[MLflowRun] | type[WandbRun]] = {"mlflow": MLflowRun, "wandb": WandbRun}


def describe_unit(unit: TrainingUnit) -> dict[str, Any]:
    """Returns what a tracker says of a unit: its request, and how many photos there are."""
    asked = unit.config.model_dump(mode="json", exclude={"trackers"})
    return {**asked, "photos": len(unit.manifest), "training_key": unit.key}


def flatten(fields: Mapping[str, Any], *, above: str = "") -> dict[str, Any]:
    """Returns nested fields under dotted names."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        full = f"{above}{name}"
        found |= flatten(value, above=f"{full}.") if isinstance(value, Mapping) else {full: value}
    return found


@contextmanager
def track_unit(unit: TrainingUnit, report: Report) -> Iterator[dict[str, Any]]:
    """Logs the epochs of a unit while the block runs, to the trackers that its request names.

    A tracker that fails costs its log, not the training: one line says so.

    Args:
        unit: that trains.
        report: brings the epochs from the workers.

    Yields:
        An empty mapping, to be filled with the workers' answer.
    """
    answer: dict[str, Any] = {}
    if not unit.config.trackers:
        yield answer
        return
    log, stop = _Log(unit), threading.Event()

    def follow() -> None:
        while not stop.wait(INTERVAL_S):
            log.add(report.take_records(str(unit)))

    thread = threading.Thread(target=follow, name="tracking", daemon=True)
    thread.start()
    try:
        yield answer
    finally:
        stop.set()
        thread.join()
        log.add(report.take_records(str(unit)))
        log.finish(answer)


def _log_epoch(values: Mapping[str, float], epoch: int, tracker: Tracker) -> None:
    tracker.log(values, epoch=epoch)


class _Log:
    """The trackers of a unit that have not failed yet."""

    def __init__(self, unit: TrainingUnit) -> None:
        self._unit = unit
        self._trackers: dict[str, Tracker] = {}
        for name in unit.config.trackers:
            try:
                self._trackers[name] = _TRACKERS[name](unit)
            except Exception as error:
                self._warn(name, error)

    def add(self, rows: list[Mapping[str, Any]]) -> None:
        for row in rows:
            numbers = {name: value for name, value in flatten(row).items() if isinstance(value, int | float)}
            epoch = int(numbers.pop("epoch"))
            self._call_each(functools.partial(_log_epoch, numbers, epoch))

    def finish(self, answer: Mapping[str, Any]) -> None:
        self._call_each(lambda tracker: tracker.finish(answer))

    def _call_each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._trackers[name]
                self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        print(f"warning: {name} no longer logs {self._unit}: {make_printable(one_line(error))}", flush=True)
