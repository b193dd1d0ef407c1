"""The prediction held against a real job, and how the line that compares them is computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.sizing import check
from jobs.sizing.check import check_prediction, copy_photos
from jobs.sizing.config import CapacityConfig
from jobs.synthetic.archive import draw_archive


@pytest.fixture
def config(tmp_path: Path) -> CapacityConfig:
    """A request to check 32 photos, of four drawn ones, with given costs."""
    draw_archive(tmp_path, size_px=128, train_good=4, test_good=0, missing_cap=0, rust=0)
    asked = {"measure": str(tmp_path / "data" / "insulator" / "train"), "preset": "differnet_fast", "precision": "fp32"}
    costs = {"decode_ms_per_megapixel": 10, "view_ms": 2, "row_ms": 0.5, "used_share": 0.5}
    return CapacityConfig.model_validate(asked | {"check_photos": 32, "megapixels": 1, "views": 4, "costs": costs})


def test_photos_are_repeated_into_archives_of_two_sizes(config: CapacityConfig, tmp_path: Path) -> None:
    copy_photos(config, tmp_path / "copies", count=32)
    counts = {one.name: len(list(one.rglob("*.jpg"))) for one in (tmp_path / "copies").iterdir()}
    assert counts == {"warm-up": 8, "small": 8, "large": 32}


def test_the_difference_of_two_runs_is_what_the_photos_took(
    config: CapacityConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"warm-up": 99.0, "small": 4.0, "large": 4.888}
    monkeypatch.setattr(check, "score_folder", lambda _folder, archive: seconds[archive])
    monkeypatch.setattr(check, "start_own_ray", lambda: None)
    # 24 photos took 0.888 s: 37 ms each; predicted are (10 + 0.5 + 4 * 2) / 0.5
    assert check_prediction(config) == (
        "the job took 37.0 ms of CPU for each of the last 24 photos, predicted 37.0 ms: +0 %"
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_job_is_measured(config: CapacityConfig, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.setattr(check, "start_own_ray", lambda: None)  # the session has one
    said = check_prediction(config)
    assert re.fullmatch(
        r"the job took -?[\d.]+ ms of CPU for each of the last 24 photos, predicted 37\.0 ms: [+-]\d+ %", said
    )
