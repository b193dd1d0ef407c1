"""The epochs of a training in MLflow and Weights & Biases, by their own clients: on a database, and offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest

from jobs.detectors import registry
from jobs.training import run as training
from jobs.training import tracking
from jobs.training.config import TrainConfig
from jobs.training.planning import plan_units
from jobs.training.tracking import track_unit
from jobs.training.units import TrainingUnit
from tests.support.training import request_tiny_training
from tests.tuning.test_tracking import read_wandb_run


class Epochs:
    """Brings epochs as `jobs.cluster.tally.Report` does."""

    def __init__(self, *epochs: int) -> None:
        """Takes the numbers of the epochs to bring."""
        self.left = [make_row(epoch) for epoch in epochs]

    def take_records(self, name: str) -> list[Mapping[str, Any]]:
        """Returns all that is left."""
        rows, self.left = self.left, []
        return rows


def make_row(epoch: int) -> Mapping[str, Any]:
    """Returns what a worker says of an epoch."""
    return {"epoch": epoch, "loss": 10.0 - epoch, "validation_loss": None, "health": {"std_ratio": 0.5}}


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers that write into the test's folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))


def make_unit(drawn: Path, tmp_path: Path, *trackers: str) -> TrainingUnit:
    """Makes a unit that asks for trackers."""
    asked = request_tiny_training(drawn, tmp_path) | {"trackers": list(trackers)}
    return plan_units(TrainConfig.model_validate(asked))[0]


def find_runs() -> list[Any]:
    """Finds the runs of MLflow."""
    client: Any = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("attentdiffernet-insulator")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def track(unit: TrainingUnit, *epochs: int, answer: Mapping[str, Any]) -> None:
    """Logs epochs as a training would that ends with an answer."""
    report: Any = Epochs(*epochs)
    with track_unit(unit, report) as tracked:
        tracked.update(answer)


@pytest.mark.slow
def test_a_training_that_is_continued_goes_on_with_its_run(drawn: Path, tmp_path: Path) -> None:
    unit = make_unit(drawn, tmp_path, "mlflow")
    track(unit, 0, 1, answer={})
    assert [run.info.status for run in find_runs()] == ["RUNNING"]
    track(unit, 2, answer={"detector_id": "0123456789abcdef"})
    (run,) = find_runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "insulator attentdiffernet_se seed 0"
    assert (run.data.tags["detector_id"], run.data.tags["training_key"]) == ("0123456789abcdef", unit.key)
    assert run.data.params["optimizer.epochs"] == "20"
    client: Any = mlflow.MlflowClient()
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(0, 10.0), (1, 9.0), (2, 8.0)]
    assert run.data.metrics == {"loss": 8.0, "health.std_ratio": 0.5}


@pytest.mark.slow
def test_a_training_that_cannot_go_on_is_a_failed_run_of_both(drawn: Path, tmp_path: Path) -> None:
    unit = make_unit(drawn, tmp_path, "mlflow", "wandb")
    track(unit, 1, answer={"refused": "training diverged"})
    assert [run.info.status for run in find_runs()] == ["FAILED"]
    read_wandb_run(tmp_path, [str(unit), unit.key, "std_ratio"])


def test_a_tracker_that_fails_costs_its_log_alone(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __init__(self, unit: TrainingUnit) -> None: ...

        def log(self, values: Mapping[str, float], *, epoch: int) -> None:
            raise OSError("no route to host\nretried 5 times")

        def finish(self, answer: Mapping[str, Any]) -> None:
            raise AssertionError("it was given up")

    monkeypatch.setattr(tracking, "_TRACKERS", {"mlflow": Broken})
    unit = make_unit(drawn, tmp_path, "mlflow")
    capsys.readouterr()
    track(unit, 1, 2, answer={})
    assert capsys.readouterr().out == (
        "warning: mlflow no longer logs insulator attentdiffernet_se seed 0: no route to host retried 5 times\n"
    )


def test_a_tracker_that_there_is_not_is_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected mlflow or wandb, got 'tensorbord'"):
        make_unit(drawn, tmp_path, "tensorbord")


@pytest.mark.slow
def test_jobs_train_logs_each_epoch(cluster: str, drawn: Path, tmp_path: Path) -> None:
    asked = request_tiny_training(drawn, tmp_path) | {"trackers": ["mlflow"], "optimizer": {"epochs": 3}}
    assert training.train_detectors(TrainConfig.model_validate(asked)) == 0
    detectors = f"file://{tmp_path}"
    champion = registry.read_aliases(detectors, "insulator")["champion"]
    (run,) = find_runs()
    assert (run.info.status, run.data.tags["detector_id"]) == ("FINISHED", champion)
    client: Any = mlflow.MlflowClient()
    losses = [one.value for one in client.get_metric_history(run.info.run_id, "loss")]
    assert losses[-3:] == registry.read_metrics(detectors, "insulator", detector_id=champion)["loss_by_epoch"]
