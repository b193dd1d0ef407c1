"""Trainings that are killed, or that can only fail: what comes out is the same detector, or one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any

import pytest
import ray.train

from jobs import storage
from jobs.detectors import registry
from jobs.errors import JobError, MissingObjectError
from jobs.storage import uris
from jobs.training import run as training
from jobs.training import trainer
from jobs.training.config import TrainConfig
from jobs.training.planning import plan_units
from tests.support.buckets import create_bucket
from tests.support.kills import list_workers, wait_until
from tests.support.training import request_tiny_training, train_plainly

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Where Ray Train lists a run's checkpoints."""


def _request(drawn: Path, detectors: str) -> dict[str, Any]:
    """A training that keeps a checkpoint after every epoch; as each takes up to two seconds, there is time to kill."""
    more = {"detectors": detectors, "variant": "differnet", "checkpoint_every_s": 0, "optimizer": {"epochs": 5}}
    return request_tiny_training(drawn, Path()) | more


def _epochs_kept(work: str) -> list[dict[str, Any]]:
    """Metrics of the epochs in the last checkpoint that Ray Train knows of."""
    try:
        last = json.loads(storage.read(uris.join(work, SNAPSHOT)))["latest_checkpoint_result"]["checkpoint_dir_name"]
        return list(json.loads(storage.read(uris.join(work, last, "progress.json")))["history"])
    except (MissingObjectError, ValueError):
        return []


def test_a_training_whose_driver_and_then_worker_are_killed_ends_as_if_nothing_had_happened(
    cluster: str, s3_environment: str | None, drawn: Path, tmp_path: Path
) -> None:
    """All epochs once each, and on one worker the same detector, bit for bit. In a bucket, where there is a server."""
    place = create_bucket(s3_environment) if s3_environment is None else str(tmp_path)
    request = _request(drawn, f"{place}/detectors")
    config = TrainConfig.model_validate(request)
    (unit,) = plan_units(config)
    _kill_a_driver(request, cluster, unit.work_folder, log=tmp_path / "driver.log")
    before = _epochs_kept(unit.work_folder)
    assert 0 < len(before) < 5

    with ThreadPool(1) as threads:
        rerun = threads.apply_async(training.train_detectors, (config,))
        _kill_a_worker(rerun, cluster, unit.work_folder, after_epochs=len(before))
        assert rerun.get(timeout=240) == 0
    detector_id, _, history = train_plainly(config, tmp_path / "artifact")
    assert registry.read_aliases(config.detectors, "insulator") == {
        "differnet.seed0": detector_id,
        "champion": detector_id,
    }
    metrics = registry.read_metrics(config.detectors, "insulator", detector_id=detector_id)
    assert metrics["loss_by_epoch"] == [epoch.loss for epoch in history]
    assert metrics["resumed_after_epoch"] > len(before)
    # Not done again: a second time would not take the same time to the last bit.
    assert metrics["seconds_by_epoch"][: len(before)] == [epoch["seconds"] for epoch in before]
    assert list(storage.list_objects(unit.work_folder)) == []


def _kill_a_driver(request: dict[str, Any], cluster: str, work: str, *, log: Path) -> None:
    """Starts the request as a user does, and kills its process once a checkpoint is kept."""
    config = log.with_suffix(".yaml")
    config.write_text(json.dumps(request))  # JSON is YAML
    with log.open("w") as said:
        driver = subprocess.Popen(
            [sys.executable, "-m", "jobs.train", "--config", str(config)],
            env=os.environ | {"RAY_ADDRESS": cluster},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(lambda: _epochs_kept(work), ended=lambda: driver.poll() is not None)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    # Ray ends what the driver had started: a worker of it must not be taken for one of the next.
    wait_until(lambda: not list_workers(cluster, "RayTrainWorker"), ended=lambda: False)


def _kill_a_worker(rerun: AsyncResult[int], cluster: str, work: str, *, after_epochs: int) -> None:
    """Kills the training worker once it has come further than the checkpoint that it began with."""
    wait_until(lambda: len(_epochs_kept(work)) > after_epochs, ended=rerun.ready)
    for worker in list_workers(cluster, "RayTrainWorker"):
        os.kill(worker, signal.SIGKILL)


def test_a_training_that_diverges_ends_at_once_with_one_line(
    cluster: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that reports it instead of dying is not started again, and nothing is left to resume."""
    in_this_process = ray.train.ScalingConfig(num_workers=0)  # no controller that could retry: the run must end well
    monkeypatch.setattr(trainer.ray.train, "ScalingConfig", lambda **_: in_this_process)
    optimizer = {"epochs": 3, "learning_rate": 1e12}
    request = request_tiny_training(drawn, tmp_path) | {"optimizer": optimizer, "variant": "differnet"}
    (unit,) = plan_units(config := TrainConfig.model_validate(request))
    storage.write(uris.join(unit.work_folder, "checkpoint"), b"of an earlier try")
    one_line = r"^insulator differnet seed 0: training diverged in epoch [^\n]*lower learning_rate[^\n]*$"
    with pytest.raises(JobError, match=one_line):
        training.train_detectors(config)
    assert registry.read_aliases(f"file://{tmp_path}", "insulator") == {}
    assert list(storage.list_objects(unit.work_folder)) == []


def test_a_second_driver_finds_what_the_first_has_registered_meanwhile(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first deletes the work folder, and the second's workers fail: its detector is there all the same."""
    config = TrainConfig.model_validate(request_tiny_training(drawn, tmp_path))
    (unit,) = plan_units(config)
    failure = trainer.ray.train.TrainingFailedError("Unable to set up cluster storage")
    monkeypatch.setattr(trainer.TorchTrainer, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(trainer.TorchTrainer, "fit", lambda _: (_ for _ in ()).throw(failure))
    with pytest.raises(
        JobError, match=rf"Unable to set up .*; the same command continues .* once {unit.work_folder} is"
    ):
        trainer.fit_unit(unit, None)  # type: ignore[arg-type]
    monkeypatch.setattr(trainer, "find_trained", lambda unit: ("a" * 16, {"epochs": 20}))
    assert trainer.fit_unit(unit, None) == {"detector_id": "a" * 16, "metrics": {"epochs": 20}}  # type: ignore[arg-type]
