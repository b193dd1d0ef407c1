"""Evaluation as a job: labelled photos and registered detectors in, metrics, tables and pictures out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs import evaluate, storage
from jobs.detectors import registry
from jobs.errors import RequestError
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.run import list_labelled_photos, split_into_passes
from jobs.evaluation.stage import NamedDetector
from jobs.tables.schema import EVALUATED, METRICS
from model.artifact import save_artifact
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.image import decode_image
from model.presets import get_preset
from model.statistics.calibration import Calibration
from model.statistics.evaluation import compute_auroc
from tests.support.detectors import TINY

_ONE_ACTOR = ["--scoring.actors", "1"]  # each imports the network, which takes longer than these photos


def _detector(variant: str, seed: int, *, image_size: int = 128) -> AttentDifferNet:
    changes = TINY | {"seed": seed, "image_size": image_size}
    return AttentDifferNet(DetectorConfig.model_validate(get_preset(variant).model_dump() | changes)).eval()


def _register(detectors: str, folder: Path, detector: AttentDifferNet, *, category: str, alias: str) -> str:
    save_artifact(folder, detector, calibration=Calibration(scores=tuple(np.linspace(0, 5, 50))), metrics={})
    detector_id = registry.put(detectors, category, folder=folder)
    registry.set_alias(detectors, category, alias=alias, detector_id=detector_id)
    return detector_id


@pytest.fixture(scope="module")
def labelled(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories of a few labelled photos each, one photo broken."""
    data = tmp_path_factory.mktemp("labelled")
    for category, count in (("insulator", 6), ("damper", 4)):
        for folder in sorted((drawn / "data" / "insulator" / "test").iterdir()):
            target = data / category / "test" / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                (target / path.name).write_bytes(path.read_bytes())
    (data / "insulator" / "test" / "good" / "zz.jpg").write_bytes(b"<html>")
    return data


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained detectors: all of insulator but one; of damper one with a larger input, and a damaged one."""
    folder = tmp_path_factory.mktemp("untrained")
    detectors = f"file://{folder}/registry"
    for number, (category, variant, seed, image_size) in enumerate(
        [
            ("insulator", "differnet", 0, 128),
            ("insulator", "differnet", 1, 128),
            ("insulator", "attentdiffernet_se", 0, 128),
            ("damper", "differnet", 0, 192),
        ]
    ):
        detector = _detector(variant, seed, image_size=image_size)
        _register(detectors, folder / str(number), detector, category=category, alias=f"{variant}.seed{seed}")
    other = _detector("differnet", 7, image_size=192)
    cut = _register(detectors, folder / "cut", other, category="damper", alias="attentdiffernet_se.seed0")
    (folder / "registry" / "damper" / cut / "detector.safetensors").write_bytes(b"cut")
    return detectors


@pytest.fixture(scope="module")
def evaluation(
    cluster: str, labelled: Path, untrained: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder that an evaluation of two variants and two seeds has written, and the lines that it has printed."""
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: said.extend(" ".join(map(str, words)).splitlines()))
        wanted = ["--variants", "differnet,attentdiffernet_se", "--seeds", "2", "--output", str(folder), *_ONE_ACTOR]
        assert evaluate.main(["--data", str(labelled), "--detectors", untrained, *wanted]) == 0
    return folder, said


def test_every_photo_has_a_row_per_detector_of_its_category(evaluation: tuple[Path, list[str]]) -> None:
    rows = pq.read_table(evaluation[0] / "results.parquet")
    assert rows.schema == EVALUATED
    keys = [tuple(row.values()) for row in rows.select(["variant", "seed", "image_uri"]).to_pylist()]
    assert len(keys) == len(set(keys)) == 3 * 19 + 2 * 12
    lost = [row for row in rows.to_pylist() if row["image_uri"].endswith("zz.jpg")]
    assert [row["status"] for row in lost] == ["unreadable"] * 3
    assert all(row["score"] is None and row["error"].startswith("not_an_image: ") for row in lost)


@pytest.mark.parametrize(
    ("category", "variant", "seed", "image_size"),
    [("insulator", "attentdiffernet_se", 0, 128), ("insulator", "differnet", 1, 128), ("damper", "differnet", 0, 192)],
)
def test_scores_p_values_and_metrics_are_those_of_the_detector_itself(
    evaluation: tuple[Path, list[str]], category: str, variant: str, seed: int, image_size: int
) -> None:
    rows = [
        row
        for row in pq.read_table(evaluation[0] / "results.parquet").to_pylist()
        if (row["category"], row["variant"], row["seed"], row["status"]) == (category, variant, seed, "scored")
    ]
    images = [decode_image(storage.read(row["image_uri"]), size=image_size) for row in rows]
    scores = _detector(variant, seed, image_size=image_size).score(torch.stack(images)).numpy()
    # Ray batches otherwise than this test does; the rounding of a matrix product may depend on it.
    np.testing.assert_allclose([row["score"] for row in rows], scores, rtol=1e-5)
    expected = [(1 + (np.linspace(0, 5, 50) >= row["score"]).sum()) / 51 for row in rows]
    assert [row["p_value"] for row in rows] == pytest.approx(expected, abs=1e-12)
    metrics = pq.read_table(evaluation[0] / "metrics.parquet")
    assert metrics.schema == METRICS
    (mine,) = (
        row
        for row in metrics.to_pylist()
        if (row["category"], row["variant"], row["seed"]) == (category, variant, seed)
    )
    assert mine["auroc"] == compute_auroc(np.array([row["label"] != "good" for row in rows]), scores)


def test_what_is_missing_or_damaged_is_named_and_ends_nothing(evaluation: tuple[Path, list[str]]) -> None:
    folder, said = evaluation
    assert "missing: attentdiffernet_se.seed1 of insulator: not registered" in said
    report = json.loads((folder / "metrics.json").read_text())
    assert [(one["category"], one["alias"]) for one in report["missing"]] == [
        ("damper", "differnet.seed1"),
        ("damper", "attentdiffernet_se.seed1"),
        ("insulator", "attentdiffernet_se.seed1"),
    ]
    (damaged,) = (row for row in report["detectors"] if row["reason"])
    assert (damaged["category"], damaged["variant"], damaged["not_scored"]) == ("damper", "attentdiffernet_se", 12)
    assert any(line.startswith("left out by attentdiffernet_se on damper, seed 0: 12 detector: ") for line in said)


def test_false_alarms_on_flawless_photos_are_set_against_the_promise(evaluation: tuple[Path, list[str]]) -> None:
    folder, said = evaluation
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    flawless = [
        row["p_value"]
        for row in rows
        if (row["category"], row["variant"], row["seed"], row["label"], row["status"])
        == ("insulator", "differnet", 1, "good", "scored")
    ]
    reported = sum(p_value <= 0.05 for p_value in flawless)
    prefix = f"false alarms of differnet on insulator, seed 1: {reported} of {len(flawless)} flawless photos reported"
    assert any(line.startswith(prefix) and "promised 0.05 by 50 calibration photos" in line for line in said)


def test_variants_are_summed_up_over_seeds_and_compared_with_the_first(evaluation: tuple[Path, list[str]]) -> None:
    folder, said = evaluation
    report = json.loads((folder / "metrics.json").read_text())
    assert [one["variant"] for one in report["variants"]] == ["differnet", "attentdiffernet_se"]
    aurocs = [
        row["auroc"] for row in report["detectors"] if (row["category"], row["variant"]) == ("insulator", "differnet")
    ]
    interval = report["variants"][0]["by_category"]["insulator"]["auroc"]
    assert interval["mean"] == pytest.approx(np.mean(aurocs), abs=1e-12)
    assert interval["low"] < interval["mean"] < interval["high"]
    (comparison,) = report["comparisons"]
    assert (comparison["variant"], comparison["categories"], comparison["seeds"]) == (
        "attentdiffernet_se",
        ["insulator"],
        1,
    )
    assert any(line.startswith("attentdiffernet_se against differnet: ") for line in said)


def test_a_pass_has_one_image_size_per_category_and_every_detector_is_in_one_pass() -> None:
    def candidate(category: str, seed: int, image_size: int) -> NamedDetector:
        config = DetectorConfig(image_size=image_size, seed=seed, scales=1)
        return NamedDetector("differnet", seed, registry.RegisteredDetector(category, f"{seed:016x}", config, None))

    small, large, more = candidate("insulator", 0, 128), candidate("insulator", 1, 448), candidate("insulator", 2, 128)
    other = candidate("damper", 0, 224)
    found = split_into_passes({"insulator": [large, small, more], "damper": [other]})
    assert found == [{"insulator": [small, more], "damper": [other]}, {"insulator": [large]}]


def test_histograms_are_written_per_category_and_variant(evaluation: tuple[Path, list[str]]) -> None:
    names = sorted(path.name for path in (evaluation[0] / "histograms").iterdir())
    assert names == ["damper.differnet.png", "insulator.attentdiffernet_se.png", "insulator.differnet.png"]


def test_without_variants_the_champion_is_evaluated(
    cluster: str, drawn: Path, detectors: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--data", str(drawn / "data"), "--detectors", detectors, *_ONE_ACTOR]) == 0
    said = capsys.readouterr().out.splitlines()
    row = next(line.split() for line in said if line.startswith("insulator "))
    assert row[1:5] == ["attentdiffernet_se", "0", "20", "16"]
    assert 50 < float(row[5]) <= 100
    mean = said[-1].split()
    assert (mean[:5], mean[5].rstrip(",")) == (["mean", "of", "1", "attentdiffernet_se", "AUROC"], row[5])


def test_patterns_choose_the_photos_of_an_evaluation(labelled: Path, untrained: str) -> None:
    asked = {"data": str(labelled), "detectors": untrained}
    every, some = (
        set(list_labelled_photos(EvaluateConfig.model_validate(asked | more))["label"].to_pylist())
        for more in ({}, {"exclude": "test/rust/*"})
    )
    assert every - some == {"rust"}


def test_a_category_without_test_photos_is_refused(drawn: Path, untrained: str) -> None:
    with pytest.raises(RequestError, match="no test photos of bushing"):
        evaluate.main(["--data", str(drawn / "data"), "--detectors", untrained, "--categories", "bushing"])


@pytest.fixture
def defects_only(labelled: Path, tmp_path: Path) -> Path:
    """A category whose test photos are all defective."""
    shutil.copytree(labelled / "insulator" / "test" / "rust", tmp_path / "data" / "insulator" / "test" / "rust")
    return tmp_path / "data"


def test_a_test_of_defects_alone_is_refused_before_any_cluster_work_with_a_way_out(
    defects_only: Path, untrained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.evaluation.run.start_ray", lambda: pytest.fail("the cluster was touched"))
    with pytest.raises(RequestError, match=r"no flawless test photos of insulator: expected .*test/good/.*--flawless"):
        evaluate.main(["--data", str(defects_only), "--detectors", untrained])


def test_calibration_photos_stand_for_flawless_ones_where_that_is_asked_for(
    cluster: str, defects_only: Path, untrained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", str(defects_only), "--detectors", untrained, "--variants", "differnet", "--seeds", "2"]
    assert evaluate.main([*argv, "--flawless", "calibration", *_ONE_ACTOR]) == 0
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if line.startswith("insulator "))
    assert row[1:5] == ["differnet", "0", "50", "6"]
    assert "false alarms of" not in said


def test_a_registry_without_any_of_the_detectors_is_refused_before_any_cluster_work(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.evaluation.run.start_ray", lambda: pytest.fail("the cluster was touched"))
    with pytest.raises(RequestError, match=r"no detector of damper, insulator .*champion of damper: not registered"):
        evaluate.main(["--data", str(labelled), "--detectors", str(tmp_path)])
