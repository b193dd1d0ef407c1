"""`jobs.score --local`: a small archive without Ray, with the rows that the cluster would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_published
from jobs.tables.schema import SCORES
from model.artifact import load_artifact


def _refuse(*_: Any, **__: Any) -> None:
    pytest.fail("it starts Ray")


def test_a_flat_folder_is_scored_without_ray_as_the_loaded_detector_scores_its_files(
    local_config: ScoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", _refuse)
    monkeypatch.setattr(ray, "remote", _refuse)
    assert scoring.score_archive(local_config) == 0
    rows = {row["image_uri"]: row for row in read_published(local_config.results, SCORES.names).to_pylist()}
    assert [row["status"] for _, row in sorted(rows.items())] == ["scored"] * 3 + ["unreadable"]
    detector = load_artifact(tmp_path / "registry" / "pole", alias="champion")
    for uri, row in rows.items():
        if row["status"] == "scored":
            found = detector.score_file(uri.removeprefix("file://"))
            assert (found.score, found.p_value) == pytest.approx((row["score"], row["p_value"]), rel=1e-6)
            assert row["category"] == "pole"
    assert "3 scored, 1 unreadable" in capsys.readouterr().out
    assert scoring.score_archive(local_config.model_copy(update={"local": False})) == 0  # published: nothing to do
