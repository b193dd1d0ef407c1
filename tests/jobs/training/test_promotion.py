"""What a training's end does to the champion: its own new detectors alone, over the champion that it found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs import storage
from jobs.detectors.aliases import read_aliases, set_alias
from jobs.detectors.backbone_weights import WeightsFiles
from jobs.training import run as training
from jobs.training.config import TrainConfig
from jobs.training.fleet import UnitResult
from jobs.training.units import TrainingUnit
from tests.support.training import request_tiny_training

OLD, OTHER = "a" * 16, "b" * 16
METRICS: dict[str, Any] = {
    "loss_by_epoch": [0.5],
    "validation_loss": None,
    "problems": [],
    "photos": {"calibration": 9},
}


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A request for two seeds on a folder of files that nobody reads."""
    for number in range(5):
        storage.write(f"file://{tmp_path}/data/insulator/train/good/{number}.jpg", b"x")
    return TrainConfig.model_validate(request_tiny_training(tmp_path, tmp_path / "registry") | {"seeds": 2})


def _train(
    config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    *,
    new: Sequence[int],
    meanwhile: str | None = None,
    validation_loss: Sequence[float] = (0.4, 0.5),
) -> None:
    """Runs the command with made-up trainings: the detector of seed n is n repeated, trained now if in ``new``."""

    def train_or_find(
        config: TrainConfig, units: Sequence[TrainingUnit], weights: WeightsFiles
    ) -> Iterator[UnitResult]:
        for seed, unit in enumerate(units):
            status = "trained" if seed in new else "already trained"
            metrics = METRICS | {"validation_loss": validation_loss[seed]}
            yield UnitResult(unit, status, str(seed) * 16, metrics, seconds=0, reason=None)
            if meanwhile is not None:
                _promote(config, meanwhile)

    monkeypatch.setattr(training, "train_or_find", train_or_find)
    assert training.train_detectors(config) == 0


def _promote(config: TrainConfig, detector_id: str) -> None:
    set_alias(config.detectors, "insulator", alias="champion", detector_id=detector_id)


def _read_champion(config: TrainConfig) -> str | None:
    return read_aliases(config.detectors, "insulator").get("champion")


def test_a_new_detector_replaces_the_champion_that_was_found(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _promote(config, OLD)
    _train(config, monkeypatch, new=[0, 1])
    assert _read_champion(config) == "0" * 16


@pytest.mark.parametrize("new", [[], [1]], ids=["nothing is new", "a worse one is new"])
def test_the_same_command_again_leaves_what_was_promoted_since(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new: Sequence[int]
) -> None:
    _promote(config, OTHER)  # by a rollback or a search, after the first call
    _train(config, monkeypatch, new=new)
    assert _read_champion(config) == OTHER
    said = capsys.readouterr().out
    assert (
        f"champion of insulator stays {OTHER}: the best of this request, {'0' * 16}, was trained by an earlier" in said
    )
    assert f"jobs.registry promote --detectors {config.detectors} --category insulator --name {'0' * 16}" in said


def test_a_promotion_while_it_trained_is_left_and_told(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _promote(config, OLD)
    _train(config, monkeypatch, new=[0, 1], meanwhile=OTHER)
    assert _read_champion(config) == OTHER
    assert f"champion of insulator is {OTHER}, not {OLD}: nothing was changed" in capsys.readouterr().out


def test_where_no_champion_is_the_best_of_all_calls_becomes_it(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a call that was killed before its end."""
    _train(config, monkeypatch, new=[1])
    assert _read_champion(config) == "0" * 16


def test_a_champion_that_is_the_best_already_stays(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _promote(config, "0" * 16)
    _train(config, monkeypatch, new=[])
    assert f"champion of insulator stays {'0' * 16}\n" in capsys.readouterr().out
