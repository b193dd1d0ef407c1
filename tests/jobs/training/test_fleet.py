"""A fleet of detectors in one job: shared photos, one failure ends no other, what is there is not trained again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from jobs import storage
from jobs.cli import parse_config
from jobs.cluster.tally import Report
from jobs.detectors import registry
from jobs.errors import EXIT_DONE, EXIT_FAILED
from jobs.training import fleet
from jobs.training import run as training
from jobs.training.config import TrainConfig
from jobs.training.fleet import UnitResult, count_concurrent_units, train_units
from jobs.training.photos import DecodedPhotos
from jobs.training.planning import plan_units
from jobs.training.units import TrainingUnit
from model.presets import PRESETS
from tests.support.places import ROOT
from tests.support.training import request_tiny_training


class _Silent(Report):
    """A report that shows nothing."""

    def __init__(self) -> None:
        pass

    def reach(self, kind: str, count: int, note: str = "") -> None:
        """Drops it."""

    def describe(self, note: str) -> None:
        """Drops it."""


@pytest.fixture
def request_of_a_fleet(drawn: Path, tmp_path: Path) -> dict[str, Any]:
    """Two seeds of one variant for two categories, of which the first has only broken photos."""
    shutil.copytree(drawn / "data" / "insulator" / "train", tmp_path / "data" / "insulator" / "train")
    folder = tmp_path / "data" / "cap" / "train" / "good"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"<html>")
    request = request_tiny_training(drawn, tmp_path / "registry")
    return request | {"data": str(tmp_path / "data"), "category": "all", "variants": "differnet", "seeds": 2}


def _table(said: str) -> list[dict[str, Any]]:
    (uri,) = (line.removeprefix("table: ") for line in said.splitlines() if line.startswith("table: "))
    rows = pq.read_table(uri.removeprefix("file://")).to_pylist()
    assert rows == json.loads(storage.read(uri.replace(".parquet", ".json")))
    return list(rows)


def test_a_fleet_trains_what_can_be_trained_names_what_cannot_and_the_rerun_trains_nothing_again(
    cluster: str, request_of_a_fleet: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig.model_validate(request_of_a_fleet)
    assert training.train_detectors(config) == EXIT_FAILED
    rows = _table(capsys.readouterr().out)
    assert [(row["category"], row["seed"], row["status"]) for row in rows] == [
        ("cap", 0, "failed"),
        ("cap", 1, "failed"),
        ("insulator", 0, "trained"),
        ("insulator", 1, "trained"),
    ]
    assert rows[0]["reason"] == "needed at least 2 readable flawless photos of cap, got 0 of 3"
    trained = {f"differnet.seed{row['seed']}": row["detector_id"] for row in rows[2:]}
    best = min(rows[2:], key=lambda row: row["validation_loss"])["detector_id"]
    assert registry.read_aliases(config.detectors, "insulator") == trained | {"champion": best}
    assert registry.read_aliases(config.detectors, "cap") == {}
    assert list((tmp_path / "registry" / ".train").iterdir()) == []

    shutil.rmtree(tmp_path / "data" / "cap")
    assert training.train_detectors(config) == EXIT_DONE
    again = _table(capsys.readouterr().out)
    assert [(row["status"], row["detector_id"]) for row in again] == [
        ("already trained", row) for row in trained.values()
    ]
    assert [row["validation_loss"] for row in again] == [row["validation_loss"] for row in rows[2:]]


def test_the_fleets_configuration_needs_nothing_more() -> None:
    file = ROOT / "infra" / "runs" / "train-fleet.yaml"
    config = parse_config(TrainConfig, ["--config", str(file)])
    assert config.categories is None
    assert set(config.asked_variants) == set(PRESETS)
    assert config.validation_share > 0


@pytest.mark.parametrize(
    ("resources", "more", "expected"),
    [
        ({"CPU": 64.0}, {}, 48),  # a quarter decodes
        ({"CPU": 64.0}, {"workers": 4}, 12),
        ({"CPU": 64.0, "GPU": 8.0}, {"use_gpu": True, "workers": 3}, 2),
        ({"CPU": 1.0}, {}, 1),
        ({"CPU": 64.0}, {"concurrent": 5}, 5),
    ],
)
def test_so_many_units_run_at_a_time_as_the_cluster_has_room_for(
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: Mapping[str, float],
    more: dict[str, Any],
    expected: int,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(ray, "nodes", lambda: [{}, {}])
    assert count_concurrent_units(TrainConfig.model_validate(request_tiny_training(drawn, tmp_path) | more)) == expected


def _train(units: list[TrainingUnit], *, concurrent: int = 1) -> list[UnitResult]:
    weights = {unit.weights_key: None for unit in units}
    return list(train_units(units, concurrent=concurrent, weights=weights, report=_Silent()))


def test_photos_are_decoded_once_per_category_and_size_and_dropped_when_their_last_unit_is_done(
    cluster: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_tiny_training(drawn, tmp_path) | {"variants": "differnet,attentdiffernet_se", "seeds": 2}
    units = plan_units(TrainConfig.model_validate(request))
    smaller = request_tiny_training(drawn, tmp_path)
    smaller["detector"] = {**dict(smaller["detector"]), "image_size": 160}  # type: ignore[call-overload]
    units += plan_units(TrainConfig.model_validate(smaller))
    decoded: list[int] = []
    kept: list[int] = []

    def decode(unit: TrainingUnit) -> DecodedPhotos:
        decoded.append(unit.config.detector.image_size)
        return DecodedPhotos(None, None, [])  # type: ignore[arg-type]

    monkeypatch.setattr(fleet, "decode_unit_photos", decode)
    monkeypatch.setattr(fleet, "train_unit", lambda unit, *_, **__: ("a" * 16, {}))
    give_back = fleet.SharedPhotos.give_back

    def watched(shared: fleet.SharedPhotos, unit: TrainingUnit) -> None:
        give_back(shared, unit)
        kept.append(len(shared))

    monkeypatch.setattr(fleet.SharedPhotos, "give_back", watched)
    assert [result.status for result in _train(units)] == ["trained"] * 5
    assert decoded == [128, 160]
    assert kept == [1, 1, 1, 0, 0]


def test_nothing_is_begun_once_ray_has_been_shut_down(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after Ctrl-C: the next call of Ray would start another cluster."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(fleet, "decode_unit_photos", lambda _: pytest.fail("it decodes"))
    (result,) = _train(plan_units(TrainConfig.model_validate(request_tiny_training(drawn, tmp_path))))
    assert (result.status, result.reason) == ("failed", "insulator attentdiffernet_se seed 0: interrupted")


def test_an_unexpected_failure_of_one_unit_becomes_its_reason(
    cluster: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = plan_units(TrainConfig.model_validate(request_tiny_training(drawn, tmp_path) | {"seeds": 3}))

    def train_unit(unit: TrainingUnit, *_: object, **__: object) -> tuple[str, dict[str, Any]]:
        if unit.config.detector.seed == 1:
            raise KeyError("what nobody thought of")
        return "a" * 16, {}

    monkeypatch.setattr(fleet, "decode_unit_photos", lambda _: None)
    monkeypatch.setattr(fleet, "train_unit", train_unit)
    results = {result.unit.config.detector.seed: result for result in _train(units, concurrent=2)}
    assert [results[seed].status for seed in range(3)] == ["trained", "failed", "trained"]
    assert results[1].reason == "KeyError: 'what nobody thought of'"
