"""A detector with tiles, from jobs.train through jobs.evaluate to jobs.score: one row, one score, one place a photo."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import evaluate, recalibrate, score, train
from jobs.results.known import read_rows
from model.artifact import load_artifact

_DETECTOR = {
    "weights": "random",
    "image-size": "128",
    "scales": "2",
    "views": "2",
    "train-views": "2",
    "train-angles": "scoring",
    "feature-scaling": "channel",
    "flow.blocks": "1",
    "flow.hidden-width": "16",
    "flow.hidden-layers": "1",
    "tiles": "2x2",
    "tile-overlap": "0.25",
    "tile-score": "top2",
}


@pytest.mark.slow
def test_photos_in_tiles_are_trained_evaluated_and_scored(cluster: str, drawn: Path, tmp_path: Path) -> None:
    detectors, results = str(tmp_path / "registry"), str(tmp_path / "results")
    flags = [part for name, value in _DETECTOR.items() for part in (f"--detector.{name}", value)]
    data = ["--data", str(drawn / "data"), "--category", "insulator", "--detectors", detectors]
    asked = [*data, "--variant", "differnet", *flags, "--optimizer.epochs", "1"]
    assert train.main(asked) == 0
    loaded = load_artifact(Path(detectors) / "insulator", alias="champion")
    assert loaded.detector.config.tiles == "2x2"
    assert loaded.calibration is not None
    assert len(loaded.calibration.scores) == 12  # photos, not their 48 tiles

    evaluation = ["--data", str(drawn / "data"), "--detectors", detectors, "--output", str(tmp_path / "evaluation")]
    assert evaluate.main(evaluation) == 0
    flawless = str(drawn / "data" / "insulator" / "test" / "good")
    place = ["--archive", flawless, "--detectors", detectors, "--results", results, "--category", "insulator"]
    for run_id, more in (("cluster", []), ("local", ["--local", "--rescore"])):
        assert score.main([*place, "--run-id", run_id, *more]) == 0
    rows = read_rows(f"file://{results}", ["image_uri", "run_id", "status", "score", "p_value", "peak_x", "peak_y"])
    scored = rows.to_pylist()
    assert [row["status"] for row in scored] == ["scored"] * 40
    for row in scored:
        found = loaded.score_file(row["image_uri"].removeprefix("file://"))
        assert (found.score, found.p_value) == pytest.approx((row["score"], row["p_value"]), rel=1e-5)
        assert 0 < row["peak_x"] < 1
        assert 0 < row["peak_y"] < 1
    fresh = ["--good", str(drawn / "data" / "insulator" / "test" / "good"), "--category", "insulator"]
    assert recalibrate.main([*fresh, "--detectors", detectors, "--alias-to", "again"]) == 0
    again = load_artifact(Path(detectors) / "insulator", alias="again")
    assert again.calibration is not None
    scores = sorted(row["score"] for row in scored if row["run_id"] == "local")
    assert sorted(again.calibration.scores) == pytest.approx(scores, rel=1e-5)
