"""Our job beside other engines: what is measured, and that all score the same photos alike."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.benchmarks.engines import config as engines_config
from jobs.benchmarks.engines import run as engines_run
from jobs.benchmarks.engines.config import ENGINES, EnginesBenchmarkConfig
from jobs.benchmarks.engines.run import (
    TITLES,
    EngineRun,
    format_engines,
    measure_engines,
    summarize_rows,
    summarize_runs,
)
from jobs.errors import RequestError


def make_run(wall_s: float, scores: dict[str, float]) -> EngineRun:
    return EngineRun(wall_s, first_s=1.0, images_per_s=10.0, cpu_ms=5.0, scores=scores)


def test_the_rate_counts_from_the_first_batch_without_its_photos() -> None:
    rows = pa.table({"photo": ["a", "b", "c", "d"], "score": [1.0] * 4, "scored_at": [110.0, 110.0, 111.0, 112.0]})
    run = summarize_rows(rows, started_at=100.0, wall_s=15.0, cpu_s=2.0)
    assert (run.first_s, run.images_per_s, run.cpu_ms) == (10.0, 1.0, 500.0)


def test_photos_of_one_batch_have_the_rate_of_the_whole_run() -> None:
    rows = pa.table({"photo": ["a", "b"], "score": [1.0, 2.0], "scored_at": [110.0, 110.0]})
    assert summarize_rows(rows, started_at=100.0, wall_s=20.0, cpu_s=2.0).images_per_s == 0.1


def test_engines_are_compared_by_medians_and_by_the_order_of_their_scores() -> None:
    same, turned = {"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 3.0, "b": 2.0, "c": 1.0}
    found = summarize_runs(
        {"ours": [make_run(5, same), make_run(9, same), make_run(6, same)], "loop": [make_run(4, turned)]}
    )
    assert found["ours"]["wall_s"] == 6
    assert found["loop"]["rank_correlation"] == pytest.approx(-1)


def test_the_table_has_a_row_for_each_engine() -> None:
    table = format_engines(summarize_runs({name: [make_run(5, {"a": 1.0, "b": 2.0})] for name in ENGINES}))
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [TITLES[name] for name in ENGINES]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    config = EnginesBenchmarkConfig.model_validate({"photos": str(tmp_path), "scratch": str(tmp_path / "scratch")})
    with pytest.raises(RequestError, match=r"is empty: expected JPEG photos under this prefix$"):
        measure_engines(config)


def test_by_default_the_engines_that_are_installed_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_config, "find_spec", lambda name: None)
    assert EnginesBenchmarkConfig().engines == [name for name in ENGINES if name != "daft"]
    monkeypatch.setattr(engines_config, "find_spec", lambda name: "found")
    assert EnginesBenchmarkConfig().engines == list(ENGINES)


@pytest.mark.parametrize(("engine", "package"), [("daft", "daft"), ("dataloader", "s3fs")])
def test_an_engine_that_is_not_installed_is_refused_by_its_package(
    engine: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines_run, "find_spec", lambda name: None)
    config = EnginesBenchmarkConfig.model_validate({"engines": [engine], "scratch": "s3://scratch"})
    with pytest.raises(RequestError, match=rf"^engine {engine} needs {package}, .*make bench-engines") as caught:
        measure_engines(config)
    assert "\n" not in str(caught.value)


def measure(names: list[str], tmp_path: Path) -> dict[str, dict[str, float]]:
    """What engines came to on eight photos, one run each after the first."""
    request = {"engines": names, "archive_photos": 8, "image_size": 96, "batch_photos": 4, "repeats": 1}
    measure_engines(EnginesBenchmarkConfig.model_validate(request | {"output": str(tmp_path / "engines.json")}))
    found: dict[str, dict[str, float]] = json.loads((tmp_path / "engines.json").read_text())["engines"]
    return found


@pytest.mark.slow
def test_a_dataloader_and_bare_processes_score_all_photos_alike(tmp_path: Path) -> None:
    found = measure(["loop", "dataloader"], tmp_path)
    assert found["dataloader"]["rank_correlation"] > 0.9
    assert all(one["wall_s"] > one["first_s"] > 0 for one in found.values())


@pytest.mark.skipif(find_spec("daft") is None, reason="Daft is not installed: make bench-engines")
def test_daft_scores_all_photos_alike(tmp_path: Path) -> None:
    assert measure(["loop", "daft"], tmp_path)["daft"]["rank_correlation"] > 0.9


@pytest.mark.docs
@pytest.mark.timeout(1200)
def test_our_job_and_ray_data_score_the_same_photos_alike(tmp_path: Path) -> None:
    found = measure(["ours", "ray_data"], tmp_path)
    assert found["ray_data"]["rank_correlation"] > 0.9
