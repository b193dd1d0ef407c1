"""What a training worker decides by itself: when to keep a checkpoint, and which epoch its metrics are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch

from jobs.training import epoch_log, worker
from jobs.training.config import TrainConfig
from jobs.training.epoch_log import EpochLog
from jobs.training.history import describe_epochs, find_kept_epoch, format_epoch
from model.training.checkpoint import TrainingState, load_state
from model.training.collapse_guard import FeatureHealth
from model.training.metrics import EpochMetrics

HEALTH = FeatureHealth(std_ratio=0.9, rank_ratio=1, dead_channels=0, gate_mean=1.02, saturation=0)


class _Clock:
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(epoch_log, "time", clock)
    return clock


def _epochs(clock: _Clock, *, every_s: float) -> EpochLog:
    request = {"data": "s3://a", "category": "cap", "detectors": "s3://d", "checkpoint_every_s": every_s}
    task: Any = None
    config = TrainConfig.model_validate(request)
    return EpochLog(task, config, rank=0, is_alone=True, kept_at_s=clock.now_s)


def test_a_checkpoint_is_kept_every_so_many_seconds(clock: _Clock) -> None:
    epochs = _epochs(clock, every_s=60)
    clock.now_s += 59
    assert not epochs.is_due()
    clock.now_s += 1
    assert epochs.is_due()


def test_checkpoints_that_take_long_become_rare(clock: _Clock) -> None:
    """Ten seconds each are 5 % of 200."""
    epochs = _epochs(clock, every_s=60)
    epochs.cost_s = 10
    clock.now_s += 199
    assert not epochs.is_due()
    clock.now_s += 1
    assert epochs.is_due()


def test_zero_seconds_keep_every_epoch_whatever_it_takes(clock: _Clock) -> None:
    epochs = _epochs(clock, every_s=0)
    epochs.cost_s = 10
    assert epochs.is_due()


def _metrics(epoch: int, validation_loss: float | None) -> EpochMetrics:
    return EpochMetrics(epoch, 0.5, validation_loss, seconds=1, views_per_s=100, health=HEALTH)


def test_the_metrics_are_those_of_the_epoch_whose_weights_are_kept() -> None:
    history = [_metrics(1, 0.4), _metrics(2, 0.3), _metrics(3, 0.35)]
    assert find_kept_epoch(history, early=True).epoch == 2
    assert find_kept_epoch(history, early=False).epoch == 3
    assert find_kept_epoch([_metrics(1, None), _metrics(2, None)], early=False).epoch == 2
    found = describe_epochs(history, early=True)
    assert (found["epochs"], found["kept_epoch"], found["validation_loss_by_epoch"]) == (3, 2, [0.4, 0.3, 0.35])


def test_the_progress_line_has_losses_gates_and_speed() -> None:
    line = format_epoch(_metrics(3, 0.25))
    assert line == "loss 0.5000, validation 0.2500, gates 1.02, feature std 0.90 of plain, 100 views/s"


def test_the_pretext_is_kept_at_once_whatever_the_clock_says(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[TrainingState] = []

    def report(_metrics: dict[str, object], checkpoint: ray.train.Checkpoint) -> None:
        with checkpoint.as_directory() as folder:
            kept.append(load_state(Path(folder)))

    monkeypatch.setattr(ray.train, "report", report)
    _epochs(clock, every_s=3600).keep_pretext(TrainingState(0, {"pretext.loss": torch.tensor(0.5)}))
    assert [float(state.tensors["pretext.loss"]) for state in kept] == [0.5]


@pytest.mark.parametrize(("cores", "workers_per_node", "expected"), [(16, 1, 16), (16, 3, 5), (2, 4, 1)])
def test_a_worker_takes_its_machines_cores_divided_by_the_workers_there(
    cores: int, workers_per_node: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: Any = type("Context", (), {"get_local_world_size": staticmethod(lambda: 1)})
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker, "count_cores", lambda: cores)
    task: Any = type("Task", (), {"workers_per_node": workers_per_node})
    assert worker.choose_threads(task) == expected
