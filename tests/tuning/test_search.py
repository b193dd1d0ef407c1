"""A whole search on drawn photos: trials, finalists, the sealed test, results; and the same again."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from jobs import storage
from jobs.cli import parse_config
from jobs.detectors import registry
from jobs.errors import RequestError
from jobs.training.config import TrainConfig
from model.config import DetectorConfig, OptimizerConfig
from model.presets import PRESETS
from tests.support.detectors import TINY
from tests.support.search import DIVERGING, request_search
from tuning import run as sweep
from tuning.choice.split import read_mark
from tuning.config import SearchConfig
from tuning.report.trials_table import TRIALS
from tuning.search import main
from tuning.trials.records import load_records


@dataclass(frozen=True)
class Searched:
    """A finished search."""

    config: SearchConfig
    request: dict[str, Any]
    said: str

    def path(self, name: str) -> Path:
        """A file of its results."""
        return Path(self.config.results.removeprefix("file://")) / name


@pytest.fixture(scope="module")
def searched(cluster: str, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    request = request_search(drawn, tmp_path_factory.mktemp("searched"), promote=True)
    said, config = io.StringIO(), SearchConfig.model_validate(request)
    with contextlib.redirect_stdout(said):
        assert sweep.run(config) == 0
    return Searched(config, request, said.getvalue())


def test_every_trial_is_there_once_and_presets_are_the_first(searched: Searched) -> None:
    records = load_records(searched.config.results)
    assert list(records) == list(range(8))
    assert [record.preset for record in records.values()] == [*PRESETS, None, None, None, None]
    assert [record.name for record in records.values()][: len(PRESETS)] == list(PRESETS)


def test_a_trial_that_diverges_is_recorded_with_its_reason_and_ends_nothing(searched: Searched) -> None:
    records = load_records(searched.config.results).values()
    failed = [record for record in records if record.status == "failed"]
    assert failed
    assert {record.optimizer["learning_rate"] for record in failed} == {DIVERGING}
    assert all("training diverged in epoch" in str(record.reason) for record in failed)
    assert max(record.number for record in records if record.status == "done") > 3
    assert "failed: trial" in searched.said


def test_the_table_of_trials_is_parquet_with_every_metric(searched: Searched) -> None:
    rows = pq.read_table(searched.path("trials.parquet"))
    assert rows.schema.equals(TRIALS)
    done = [row for row in rows.to_pylist() if row["status"] == "done"]
    assert all(row["objective"] == row["auroc"] for row in done)
    assert all(0 <= row[name] <= 1 for row in done for name in ("auroc", "synthetic_auroc"))
    assert all(row["gflop"] > 0 and row["cpu_s"] > 0 and -1 <= row["shift_agreement"] <= 1 for row in done)
    assert json.loads(done[0]["detector"])["variant"] == "differnet"


def test_the_winner_is_the_best_finalist_over_new_seeds_unless_a_preset_is_as_good(searched: Searched) -> None:
    results = json.loads(searched.path("results.json").read_text())
    finalists = results["finalists"]
    records = load_records(searched.config.results)
    assert 2 <= len(finalists) <= 3
    assert any(records[one["trial"]].preset for one in finalists)
    winner, *others = (sum(one["values"]) / len(one["values"]) for one in finalists)
    assert others == sorted(others, reverse=True)
    assert winner >= others[0] or records[finalists[0]["trial"]].preset
    seeds = {path.name.split(".")[1] for path in searched.path("finalists").iterdir()}
    assert seeds == {"seed1", "seed2"}  # the trials' own is 0
    mark = read_mark(searched.config.results)
    assert mark is not None
    assert mark["winner"] == records[finalists[0]["trial"]].key


def test_the_winner_s_yaml_trains_the_same_detector(searched: Searched) -> None:
    path = searched.path("winner.yaml")
    config = parse_config(TrainConfig, ["--config", str(path)])
    winner = load_records(searched.config.results)[_winner(searched)]
    named = DetectorConfig.model_validate({**winner.detector, "variant": "tuned", "seed": 0})
    assert config.detector == named
    assert config.optimizer == OptimizerConfig.model_validate(winner.optimizer)
    assert parse_config(TrainConfig, ["--config", str(path), "--alias", "champion", "--seeds", "1"]).alias == "champion"


def _winner(searched: Searched) -> int:
    return int(json.loads(searched.path("results.json").read_text())["finalists"][0]["trial"])


def test_the_winner_s_detectors_are_registered_and_calibrated(searched: Searched) -> None:
    aliases = registry.read_aliases(searched.config.registry, "insulator")
    assert {"tuned.seed0", "tuned.seed1"} <= set(aliases)
    for seed in (0, 1):
        found = registry.resolve(searched.config.registry, "insulator", alias=f"tuned.seed{seed}")
        assert found is not None
        assert (found.config.variant, found.config.seed) == ("tuned", seed)
        assert found.calibration is not None
        assert len(found.calibration.scores) == 12  # a fifth of 60
        card = registry.read_metrics(searched.config.registry, "insulator", detector_id=found.detector_id)
        assert len(card["training_photos"]) >= 48
        assert card["lineage"]["config"]["space"]["pooling"] == ["average", "average_max"]


def test_the_final_comparison_has_every_preset_on_photos_that_no_trial_saw(searched: Searched) -> None:
    rows = pq.read_table(searched.path("final.parquet")).to_pylist()
    assert {row["variant"] for row in rows} == {"tuned", *PRESETS}
    tested = {row["image_uri"] for row in rows}
    split = sweep.split_data(searched.config.data, "insulator", validation_share=0.5)
    assert tested.isdisjoint(split.validation["image_uri"].to_pylist())
    assert len(tested) == sum(split.test.counts.values())
    results = json.loads(searched.path("results.json").read_text())
    assert {one["reference"] for one in results["comparisons"]} == set(PRESETS)
    assert all(one["low"] <= one["mean"] <= one["high"] for one in results["comparisons"])


def test_the_alias_moved_if_and_only_if_the_winner_is_better_by_more_than_the_interval(searched: Searched) -> None:
    results = json.loads(searched.path("results.json").read_text())
    means = {one["variant"]: one["mean"]["auroc"]["mean"] for one in results["final"]}
    best = max(PRESETS, key=lambda name: means[name])
    (against,) = [one for one in results["comparisons"] if one["reference"] == best]
    moved = "champion" in registry.read_aliases(searched.config.registry, "insulator")
    assert moved == (against["low"] > 0)
    assert "champion of insulator" in searched.said


def test_the_page_has_tables_and_pictures_and_no_script(searched: Searched) -> None:
    page = searched.path("index.html").read_text()
    for text in ("Final comparison", "tuned against differnet", "attentdiffernet_best", "training diverged"):
        assert text in page
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    assert searched.path("placements.png").read_bytes()[:4] == searched.path("cost.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_command_again_trains_nothing_and_says_the_same(
    searched: Searched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("something was trained again")

    for name in ("tuning.run.run_trials", "tuning.choice.finalists.run_training", "tuning.choice.final.train_final"):
        monkeypatch.setattr(name, nothing)
    before = searched.path("results.json").read_text()
    assert sweep.run(searched.config) == 0
    assert json.loads(searched.path("results.json").read_text()) == json.loads(before)
    assert "tuned against differnet" in capsys.readouterr().out


def test_once_the_test_is_open_no_trial_is_added(searched: Searched, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.run(searched.config.model_copy(update={"trials": 20, "promote": False})) == 0
    assert "the test photos have been opened: 12 trial(s) that are left are not run" in capsys.readouterr().out
    assert len(load_records(searched.config.results)) == 8


def test_the_same_seed_gives_the_same_trials_and_the_same_metrics(
    searched: Searched, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another results folder and its own cache; every metric to the last bit, on one worker."""
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(request_search(drawn, tmp_path / "again", trials=6)))
    assert (
        main(["--config", str(tmp_path / "search.yaml"), "--no-final", "--finalists", "1", "--finalist-seeds", "1"])
        == 0
    )
    first = list(load_records(searched.config.results).values())[:6]
    again = list(load_records(f"file://{tmp_path / 'again'}").values())
    assert [one.parameters for one in again] == [one.parameters for one in first]
    assert [_but_time(one.metrics) for one in again] == [_but_time(one.metrics) for one in first]
    assert [one.status for one in again] == [one.status for one in first]
    assert read_mark(f"file://{tmp_path / 'again'}") is None
    assert "tuned against" not in capsys.readouterr().out
    assert "The test photos are still sealed" in (tmp_path / "again" / "index.html").read_text()


def _but_time(metrics: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in metrics.items() if name != "cpu_s"}


# Requests that are refused before any cluster work


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"space": {"image_size": 64, "scales": 3}}, "space.scales: none of"),
        ({"category": "bushing"}, "needs at least 8 photos in .*bushing"),
        ({"detector": {**TINY, "weights": "/nowhere.safetensors"}}, "--detector.weights"),
    ],
)
def test_a_request_that_cannot_work_is_told_in_one_line(
    more: dict[str, Any], message: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "start_ray", lambda: pytest.fail("Ray was started"))
    with pytest.raises(RequestError, match=message):
        sweep.run(SearchConfig.model_validate(request_search(drawn, tmp_path, **more)))
    assert list(storage.list_objects(f"file://{tmp_path}")) == []
