"""Searches whose driver, trials or Ray Tune die: every trial ends up recorded once, with its reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.support.kills import wait_until
from tests.support.search import request_search
from tuning import run as sweep
from tuning.config import SearchConfig
from tuning.space.presets import build_presets
from tuning.space.space import read_space
from tuning.trials import run as tune_run
from tuning.trials.records import TrialStart, load_records, load_starts, write_start
from tuning.trials.trial import TrialSettings


def test_a_search_whose_driver_is_killed_goes_on_and_has_every_trial_once(
    cluster: str, drawn: Path, tmp_path: Path
) -> None:
    results = f"file://{tmp_path / 'results'}"
    more = {"trials": 7, "final": False, "finalists": 1, "finalist_seeds": 1}
    request = request_search(drawn, tmp_path / "results", **more)
    (tmp_path / "search.yaml").write_text(json.dumps(request))  # JSON is YAML
    with (tmp_path / "driver.log").open("w") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tuning.search", "--config", str(tmp_path / "search.yaml")],
            env=os.environ | {"RAY_ADDRESS": cluster},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(
                lambda: len(load_records(results)) >= 2 and set(load_starts(results)) - set(load_records(results)),
                ended=lambda: driver.poll() is not None,
            )
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    before, begun = load_records(results), load_starts(results)
    assert 2 <= len(before) < 7

    assert sweep.run(SearchConfig.model_validate(request)) == 0
    after = load_records(results)
    assert list(after) == list(range(7))
    assert {number: after[number] for number in before} == before  # none was done again
    under_way = set(begun) - set(before)
    assert all(after[number].parameters == begun[number].parameters for number in under_way)
    keys = [record.key for record in after.values() if record.copy_of is None]
    assert len(set(keys)) == len(keys)


@pytest.fixture
def fake(cluster: str, drawn: Path, tmp_path: Path) -> Callable[..., tuple[SearchConfig, TrialSettings]]:
    """A search whose trials do what a test says instead of training."""

    def make(**more: Any) -> tuple[SearchConfig, TrialSettings]:
        config = SearchConfig.model_validate(request_search(drawn, tmp_path / "results", **more))
        shared: Any = type("NoPhotos", (), {"photos_hash": "none"})()
        return config, TrialSettings(shared, config.results, "auroc", [0], [4], config.workers, config.gpus_per_worker)

    return make


def _run(config: SearchConfig, trials: TrialSettings) -> None:
    tune_run.run_trials(config, build_presets(read_space(config)), trials, metrics=["auroc", "gflop"])


def test_a_trial_whose_process_is_killed_is_recorded_and_the_others_go_on(
    fake: Callable[..., tuple[SearchConfig, TrialSettings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, trials = fake(trials=4)

    def dying(config: dict[str, Any], trials: TrialSettings) -> None:
        import os
        import signal

        from ray import tune

        if config["started"]["number"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
        tune.report({"epoch": 4, "objective": 0.5, "auroc": 0.5, "gflop": 1.0})

    monkeypatch.setattr(tune_run, "run_trial", dying)
    _run(config, trials)
    found = load_records(config.results)
    assert [found[number].status for number in range(4)] == ["done", "failed", "done", "done"]
    assert "died" in str(found[1].reason).lower()


def test_ray_tune_that_ends_for_want_of_memory_is_started_again(
    fake: Callable[..., tuple[SearchConfig, TrialSettings]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ray's own OutOfMemoryError ends Tune as a whole: once is bad luck, twice is the trial's fault."""
    config, trials = fake(trials=3)
    calls: list[set[int]] = []

    def ending(*arguments: Any, **keywords: Any) -> None:
        calls.append(set(load_records(config.results)))
        configuration = build_presets(read_space(config))[1].configuration
        started = TrialStart(
            number=1,
            key="k",
            preset=None,
            parameters={},
            detector=configuration.detector.model_dump(mode="json"),
            optimizer=configuration.optimizer.model_dump(mode="json"),
            lost=len(calls) - 1,
        )
        write_start(config.results, started)
        if len(calls) <= 2:
            raise ray.exceptions.OutOfMemoryError("Memory on the node was 23 GB of 23 GB")
        original(*arguments, **keywords)

    def quick(config: dict[str, Any], trials: TrialSettings) -> None:
        from ray import tune

        tune.report({"epoch": 4, "objective": 0.5, "auroc": 0.5, "gflop": 1.0})

    original = tune_run.run_tune
    monkeypatch.setattr(tune_run, "run_tune", ending)
    monkeypatch.setattr(tune_run, "run_trial", quick)
    _run(config, trials)
    assert calls == [set(), set(), {1}]
    found = load_records(config.results)
    assert [found[number].status for number in range(3)] == ["done", "failed", "done"]
    assert "Memory on the node was 23 GB" in str(found[1].reason)
    assert capsys.readouterr().out.count("warning: Ray Tune ended") == 2


def test_when_the_time_is_over_no_trial_starts_and_the_next_run_goes_on(
    fake: Callable[..., tuple[SearchConfig, TrialSettings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, trials = fake(trials=3)

    def quick(config: dict[str, Any], trials: TrialSettings) -> None:
        from ray import tune

        tune.report({"epoch": 4, "objective": 0.5, "auroc": 0.5, "gflop": 1.0})

    monkeypatch.setattr(tune_run, "run_trial", quick)
    _run(config.model_copy(update={"time_budget_s": 1e-6}), trials)
    assert load_records(config.results) == {}
    _run(config, trials)
    assert list(load_records(config.results)) == [0, 1, 2]


@pytest.mark.timeout(240)
def test_a_stopped_trial_that_is_slow_to_end_holds_nothing_up(
    fake: Callable[..., tuple[SearchConfig, TrialSettings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is kept for the next trial; Ray Tune waits 2 s for its end by default, and then for ever."""

    def slow_to_end(config: dict[str, Any], trials: TrialSettings) -> None:
        import time

        from tuning.trials import trial

        def run_training(name: str, job: Any, trials: Any, tell: Any) -> None:
            number = config["started"]["number"]
            try:
                for epoch in (1, 2, 4):
                    tell(epoch, {"auroc": 0.9 - 0.1 * number, "gflop": 1.0})
            finally:
                time.sleep(4)  # stands for a detector of gigabytes that is let go on a busy machine

        trial.run_training = run_training
        trial.run_trial(config, trials)

    config, trials = fake(trials=4, concurrent=1, early_stopping=True, grace_epochs=1, reduction_factor=2)
    monkeypatch.setattr(tune_run, "run_trial", slow_to_end)
    _run(config, trials)
    assert [record.status for record in load_records(config.results).values()] == ["done", *["stopped"] * 3]


# How much of a cluster trials take


def _turnstile(expected: int) -> Any:
    """An actor that counts who is inside, and lets nobody out before as many as expected have been in at once."""

    class Turnstile:  # within a function it travels by value: workers cannot import this module
        def __init__(self) -> None:
            import asyncio

            self._full = asyncio.Event()
            self._inside: set[int] = set()
            self._most, self._gpus = 0, list[tuple[int, float]]()

        async def enter(self, number: int, gpu: float) -> None:
            self._inside.add(number)
            self._gpus.append((number, gpu))
            self._most = max(self._most, len(self._inside))
            if len(self._inside) >= expected:
                self._full.set()
            await self._full.wait()

        async def leave(self, number: int) -> None:
            self._inside.discard(number)

        async def read(self) -> tuple[int, list[tuple[int, float]]]:
            return self._most, self._gpus

    return ray.remote(num_cpus=0)(Turnstile).remote()


@pytest.mark.parametrize(
    ("more", "at_once"),
    [({"gpus_per_worker": 0.5, "concurrent": None}, 4), ({"gpus_per_worker": 0.5, "concurrent": 2}, 2)],
    ids=["as many as two GPUs have halves", "as many as the cap says"],
)
def test_trials_share_two_gpus_and_keep_to_the_cap(
    fake: Callable[..., tuple[SearchConfig, TrialSettings]],
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    at_once: int,
) -> None:
    config, trials = fake(trials=4, **more)
    assert tune_run.count_concurrent_trials(config) == at_once
    turnstile = _turnstile(at_once)

    def passing(config: dict[str, Any], trials: TrialSettings, turnstile: Any = turnstile) -> None:
        import ray
        from ray import tune

        number, context = config["started"]["number"], ray.get_runtime_context()
        ray.get(turnstile.enter.remote(number, context.get_assigned_resources()["GPU"]))
        ray.get(turnstile.leave.remote(number))
        tune.report({"epoch": 4, "objective": 0.5, "auroc": 0.5, "gflop": 1.0})

    monkeypatch.setattr(tune_run, "run_trial", passing)
    _run(config, trials)
    most, gpus = ray.get(turnstile.read.remote())
    assert most == at_once
    assert [gpu for _, gpu in gpus] == [0.5] * 4
    assert sorted(number for number, _ in gpus) == [0, 1, 2, 3]


def _on_logical_gpus(turnstile: Any) -> Callable[[dict[str, Any], TrialSettings], None]:
    """A trial as it is, but its workers find a CPU behind their GPU; each trial's show at the turnstile what they got.

    For a worker with a share of a GPU, Ray Train asks CUDA's driver for the device, and there is none here.
    """

    def run(config: dict[str, Any], trials: TrialSettings) -> None:
        import ray
        from ray.train.torch import config as train_config

        from tuning.trials import distributed, trial

        def stand_in() -> float:
            import ray
            from ray.air._internal import device_manager

            device_manager.SUPPORTED_ACCELERATOR_TORCH_DEVICE_MANAGER["GPU"] = device_manager.CPUTorchDeviceManager
            return float(ray.get_runtime_context().get_assigned_resources()["GPU"])

        number = config["started"]["number"]

        class Backend(train_config._TorchBackend):
            def on_start(self, worker_group: Any, backend_config: Any) -> None:
                for gpu in worker_group.execute(stand_in):
                    ray.get(turnstile.enter.remote(number, gpu))
                super().on_start(worker_group, backend_config)

        class Config(train_config.TorchConfig):
            @property
            def backend_cls(self) -> type[Backend]:
                return Backend

        distributed.TorchConfig = Config  # type: ignore[misc]  # in the trial's own process, which ends with the search
        trial.run_trial(config, trials)

    return run


def test_trials_of_two_workers_share_two_gpus_and_come_to_what_one_worker_does(
    cluster: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DistributedDataParallel by Ray Train inside each trial, on halves of logical GPUs."""
    turnstile = _turnstile(2)
    found = []
    for name, more in (
        ("alone", {"concurrent": 1}),
        ("together", {"workers": 2, "gpus_per_worker": 0.5, "concurrent": None}),
    ):
        # Which of two trials comes to a rung first is chance, and ASHA may stop the second: here none is stopped.
        request = request_search(drawn, tmp_path / name, trials=2, early_stopping=False, **more)
        config = SearchConfig.model_validate(request)
        presets = build_presets(read_space(config))
        split = sweep.split_data(config.data, config.category, validation_share=0.5)
        trials = sweep.prepare_trials(config, split, presets, objective="auroc", weights=None)
        if config.workers > 1:
            assert tune_run.count_concurrent_trials(config) == 2
            monkeypatch.setattr(tune_run, "run_trial", _on_logical_gpus(turnstile))
        tune_run.run_trials(config, presets, trials, metrics=sweep.METRICS)
        found.append(load_records(config.results))
    most, gpus = ray.get(turnstile.read.remote())
    assert most == 2
    assert sorted(gpus) == [(0, 0.5), (0, 0.5), (1, 0.5), (1, 0.5)]
    for alone, together in zip(found[0].values(), found[1].values(), strict=True):
        assert (alone.status, together.status, together.reason) == ("done", "done", None)
        assert together.epochs == 4
        # The same gradients up to the rounding of a sum; one worker's metrics are those of the plain training.
        for name in ("held_out_gain", "auroc", "synthetic_auroc"):
            assert together.metrics[name] == pytest.approx(alone.metrics[name], abs=2e-3)
