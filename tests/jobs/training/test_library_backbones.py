"""A network that the project has no line of code for, trained and scored by flags alone."""

from __future__ import annotations

from pathlib import Path

from jobs import score, train
from jobs.detectors import registry
from jobs.results.known import read_rows
from model.artifact import load_artifact

_DETECTOR = {
    "backbone": "shufflenet_v2_x0_5",
    "weights": "random",
    "feature-stage": "stage2+stage3",
    "pooling": "average+generalized_mean",
    "attention": '{"stage2": {"kind": "eca"}}',
    "pretext.steps": "1",
    "image-size": "64",
    "scales": "1",
    "views": "2",
    "train-views": "2",
    "flow.blocks": "1",
    "flow.hidden-width": "16",
}


def test_a_network_of_torchvision_is_trained_and_scores_by_flags_alone(
    cluster: str, drawn: Path, tmp_path: Path
) -> None:
    detectors, results = str(tmp_path / "registry"), str(tmp_path / "results")
    flags = [part for name, value in _DETECTOR.items() for part in (f"--detector.{name}", value)]
    asked = ["--data", str(drawn / "data"), "--category", "insulator", "--detectors", detectors]
    assert train.main([*asked, *flags, "--optimizer.epochs", "1"]) == 0

    flawless = str(drawn / "data" / "insulator" / "test" / "good")
    place = ["--archive", flawless, "--detectors", detectors, "--results", results]
    assert score.main([*place, "--category", "insulator", "--local", "--run-id", "r"]) == 0
    rows = read_rows(f"file://{results}", ["image_uri", "status", "score"]).to_pylist()
    assert [row["status"] for row in rows] == ["scored"] * 20
    detector = load_artifact(Path(detectors) / "insulator", alias="champion")
    assert detector.detector.feature_dim == 2 * (48 + 96)
    first = detector.score_file(rows[0]["image_uri"].removeprefix("file://"))
    assert abs(first.score - rows[0]["score"]) < 1e-6 * abs(first.score)
    found = registry.resolve(f"file://{detectors}", "insulator", alias="champion")
    assert found is not None
    assert found.config.backbone == "shufflenet_v2_x0_5"
