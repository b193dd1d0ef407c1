"""Trials in MLflow and Weights & Biases, by their own clients: MLflow on a database of its own, W&B offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from jobs.cluster import trackers
from jobs.cluster.trackers import check_trackers
from jobs.errors import RequestError
from tests.support.search import request_search
from tuning import run as sweep
from tuning.config import SearchConfig
from tuning.trials import tracking
from tuning.trials.records import load_records


def read_wandb_run(folder: Path, words: list[str]) -> bytes:
    """Reads the run of W&B that holds ``words``; W&B's own process may still be writing it once a search has ended."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in folder.glob("wandb/offline-run-*/*.wandb"):
            content = path.read_bytes()
            if all(word.encode() in content for word in words):
                return content
        time.sleep(0.2)
    found = [f"{path.relative_to(folder)}: {path.stat().st_size} bytes" for path in folder.glob("wandb/*/*.wandb")]
    return pytest.fail(f"no run of W&B with {words} within two minutes, but {found}")


@pytest.mark.timeout(400)
def test_every_trial_is_a_run_of_mlflow_and_of_wandb(
    cluster: str,
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    more = {"trials": 7, "finalists": 1, "finalist_seeds": 1, "final": False, "early_stopping": False}
    request = request_search(drawn, tmp_path / "results", trackers=["mlflow", "wandb"], **more)
    config = SearchConfig.model_validate(request)
    assert sweep.run(config) == 0

    records = load_records(config.results)
    names = [f"trial-{number:05}" + (f"-{one.preset}" if one.preset else "") for number, one in records.items()]
    assert {one.status for one in records.values()} == {"done", "failed"}

    client: Any = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("attentdiffernet-insulator")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == names
    for name, record in zip(names, records.values(), strict=True):
        run = runs[name]
        assert run.info.status == {"done": "FINISHED", "failed": "FAILED"}[record.status]
        assert run.data.params["started/key"] == record.key
        metrics = {metric: value for metric, value in record.metrics.items() if value is not None}
        logged = {metric: value for metric, value in run.data.metrics.items() if metric != "training_iteration"}
        assert logged == pytest.approx(metrics)

    for name, record in zip(names, records.values(), strict=True):
        metrics = ["held_out_gain"] if record.status == "done" else []
        content = read_wandb_run(tmp_path, [name, record.key, *metrics])
        assert (b"held_out_gain" in content) == (record.status == "done")
    assert "Traceback" not in capfd.readouterr().err


def _request(tmp_path: Path, tracker: str) -> SearchConfig:
    return SearchConfig.model_validate(request_search(tmp_path, tmp_path, trackers=[tracker]))


def test_a_tracker_whose_client_is_missing_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(
        RequestError, match=r"--trackers mlflow: not installed here, install attentdiffernet-ray\[track"
    ):
        check_trackers(["mlflow"])


@pytest.mark.slow
def test_wandb_without_a_key_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(RequestError, match=r"--trackers wandb needs a key and found none: set WANDB_API_KEY"):
        check_trackers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])


def test_wandb_s_runs_go_where_the_variables_of_its_client_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BASE_URL", "https://wandb.example"), ("ENTITY", "grid"), ("MODE", "online")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    (callback,) = tracking.make_tracking_callbacks(_request(tmp_path, "wandb"), metrics=["auroc"])
    assert callback.kwargs == {
        "dir": str(tmp_path),
        "entity": "grid",
        "mode": "online",
        "settings": {"base_url": "https://wandb.example"},
    }
