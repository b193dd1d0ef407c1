"""The benchmark against anomalib: what can be tested without it, and a small real run where it is installed."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from jobs import benchmark
from jobs.benchmarks.peers import measurement as peer_measurement
from jobs.benchmarks.peers import ours as benchmark_ours
from jobs.benchmarks.peers import report as peer_report
from jobs.benchmarks.peers.config import PeersBenchmarkConfig
from jobs.benchmarks.peers.measurement import (
    Fitted,
    LabelledFolder,
    Pass,
    Score,
    UnfittedError,
    find_defects,
    fit_first,
    time_all,
)
from jobs.benchmarks.peers.ours import read_comparison
from jobs.benchmarks.peers.picture import draw_picture, list_points
from jobs.benchmarks.peers.report import summarize_passes
from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from model.presets import get_random_preset
from model.training.collapse_guard import CollapseError, FeatureHealth


class _Fake:
    """Scores a photo by its file's size; how often it was fitted is counted."""

    unfit: Collection[tuple[str, int]] = ()

    def __init__(self, name: str, side: Literal["ours", "anomalib"], *, has_auroc: bool = True, sign: int = 1) -> None:
        self.name, self.side, self.has_auroc, self.sign = name, side, has_auroc, sign
        self.about: dict[str, Any] = {"backbone": "none"}
        self.identity = f"{name} {sign}"
        self.fits: list[tuple[str, int]] = []

    def fit(self, photos: LabelledFolder, *, seed: int) -> Score:
        self.fits.append((photos.name, seed))
        if (photos.name, seed) in self.unfit:
            raise UnfittedError("it collapsed")

        def score(folder: Path) -> npt.NDArray[np.float64]:
            return np.array([self.sign * len(file.read_bytes()) for file in sorted(folder.iterdir())], float)

        return score


@pytest.fixture
def photos(tmp_path: Path) -> list[LabelledFolder]:
    """Two categories of different photos in which larger files are the defective ones."""
    found = []
    for extra, name in enumerate(("first", "second")):
        for split, sizes in (("train", (1, 1)), ("test", (1, 2, 5, 6))):
            (tmp_path / name / split).mkdir(parents=True)
            for number, size in enumerate(sizes):
                (tmp_path / name / split / f"{number:04d}.jpg").write_bytes(b"x" * (size + extra))
        labels = np.array([False, False, True, True])
        found.append(LabelledFolder(name, tmp_path / name / "train", tmp_path / name / "test", labels))
    return found


def _all_aurocs(contestants: list[_Fake], photos: list[LabelledFolder], kept: Path) -> dict[str, Fitted]:
    fitted, _ = fit_first(contestants, photos[0])
    list(find_defects(contestants, fitted, photos, seeds=2, kept=kept))
    return fitted


def test_every_category_and_seed_has_an_auroc_and_the_first_fit_is_used_again(
    photos: list[LabelledFolder], tmp_path: Path
) -> None:
    good, bad = _Fake("good", "ours"), _Fake("bad", "anomalib", sign=-1)
    fitted = _all_aurocs([good, bad], photos, tmp_path / "kept")
    assert fitted["good"].auroc == {"first": [1.0, 1.0], "second": [1.0, 1.0]}
    assert fitted["bad"].auroc == {"first": [0.0, 0.0], "second": [0.0, 0.0]}
    assert good.fits == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]


def test_a_second_run_measures_only_what_is_not_kept(photos: list[LabelledFolder], tmp_path: Path) -> None:
    _all_aurocs([_Fake("good", "ours")], photos, tmp_path / "kept")
    again, other = _Fake("good", "ours"), _Fake("good", "ours", sign=-1)
    assert _all_aurocs([again], photos, tmp_path / "kept")["good"].auroc["second"] == [1.0, 1.0]
    assert again.fits == [("first", 0)]
    assert _all_aurocs([other], photos, tmp_path / "kept")["good"].auroc["second"] == [0.0, 0.0]
    (photos[1].test / "0000.jpg").write_bytes(b"x" * 9)
    assert _all_aurocs([again], photos, tmp_path / "kept")["good"].auroc["second"] == [0.5, 0.5]


def test_a_seed_that_cannot_be_fitted_costs_its_own_auroc_and_is_told(
    photos: list[LabelledFolder], tmp_path: Path
) -> None:
    contestant = _Fake("shaky", "ours")
    contestant.unfit = [("second", 0)]
    fitted = _all_aurocs([contestant], photos, tmp_path / "kept")["shaky"]
    assert fitted.auroc == {"first": [1.0, 1.0], "second": [1.0]}
    assert fitted.failures == {"second": ["seed 0: it collapsed"]}
    passes = {"shaky": [Pass(1.0, 1.0)]}
    found = summarize_passes([contestant], {"shaky": fitted}, passes, photos=1, labels={})
    assert found["contestants"]["shaky"]["failures"] == fitted.failures


def test_who_cannot_learn_the_first_category_is_left_out_by_name_and_reason(photos: list[LabelledFolder]) -> None:
    contestant, other = _Fake("shaky", "ours"), _Fake("good", "ours")
    contestant.unfit = [("first", 0)]
    fitted, left_out = fit_first([contestant, other], photos[0])
    assert list(fitted) == ["good"]
    assert left_out == {"shaky": "it collapsed"}


def test_a_training_of_ours_that_goes_astray_is_told_in_one_line(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def collapsing(*_arguments: object, **_options: object) -> None:
        raise CollapseError(3, FeatureHealth(std_ratio=1, rank_ratio=0.68, dead_channels=0, gate_mean=1, saturation=0))

    monkeypatch.setattr(benchmark_ours, "train", collapsing)
    detector = {"weights": "random", "image_size": 128, "scales": 2, "flow": {"blocks": 1, "hidden_width": 8}}
    settings = ComparisonConfig(data=["drawn"], output="unused", variants=["differnet"], detector=detector)
    train = drawn / "data" / "insulator" / "train" / "good"
    ours = benchmark_ours.OurDetector("differnet", settings, training=[train], batch_photos=2)
    with pytest.raises(UnfittedError, match=r"collapsed after epoch 3: effective rank is 0\.68"):
        ours.fit(LabelledFolder("drawn", train, train, np.zeros(0, bool)), seed=0)


def test_random_weights_have_speed_alone(photos: list[LabelledFolder], tmp_path: Path) -> None:
    contestant = _Fake("random", "anomalib", has_auroc=False)
    assert _all_aurocs([contestant], photos, tmp_path / "kept")["random"].auroc == {}
    assert contestant.fits == [("first", 0)]


def test_passes_take_turns_after_a_warm_up(photos: list[LabelledFolder]) -> None:
    order: list[str] = []

    def score(name: str) -> Score:
        def record_pass(_folder: Path) -> npt.NDArray[np.float64]:
            order.append(name)
            return np.zeros(0)

        return record_pass

    passes = time_all({"a": score("a"), "b": score("b")}, photos[0].test, repeats=2)
    assert order == ["a", "b"] * 3
    assert {name: len(found) for name, found in passes.items()} == {"a": 2, "b": 2}


def test_ratios_are_medians_of_neighbouring_passes_and_auroc_is_compared_on_common_categories() -> None:
    ours, peer = _Fake("ours", "ours"), _Fake("peer", "anomalib")
    nothing: Score = lambda folder: np.zeros(0)  # noqa: E731
    scores = {"first": {0: np.arange(4.0)}}
    fitted = {
        "ours": Fitted(nothing, 1.0, {"first": [0.8, 1.0], "second": [0.2]}, scores),
        "peer": Fitted(nothing, 1.0, {"first": [0.7]}, scores),
    }
    passes = {
        "ours": [Pass(1.0, 2.0), Pass(2.0, 2.0), Pass(1.0, 1.0)],
        "peer": [Pass(10.0, 10.0), Pass(30.0, 12.0), Pass(90.0, 90.0)],
    }
    labels = {"first": np.array([False, False, True, True])}
    found = summarize_passes([ours, peer], fitted, passes, photos=10, labels=labels)
    (row,) = found["ratios"]
    assert (row["cpu_ratio"], row["wall_ratio"]) == (15.0, 6.0)
    assert row["cpu_ratio_range"] == [10.0, 90.0]
    assert row["auroc_difference"] == pytest.approx(0.2)
    assert row["auroc_categories"] == ["first"]
    assert row["at_equal_auroc"]
    assert found["contestants"]["ours"]["mean_auroc"] == pytest.approx(0.55)
    assert found["contestants"]["peer"]["images_per_cpu_s"] == pytest.approx(10 / 30)
    json.dumps(found)


def test_a_difference_has_an_interval_over_photos_and_sets_that_confirm_stay_apart(
    photos: list[LabelledFolder], tmp_path: Path
) -> None:
    ours, peer = _Fake("ours", "ours"), _Fake("peer", "anomalib", sign=-1)
    named = [replace(one, name=f"{one.name}/part") for one in photos]
    fitted = _all_aurocs([ours, peer], named, tmp_path / "kept")
    passes = {name: [Pass(1.0, 1.0)] for name in fitted}
    labels = {one.name: one.is_defective for one in named}
    found = summarize_passes([ours, peer], fitted, passes, photos=1, labels=labels, confirm=["second"])
    (row,) = found["ratios"]
    assert row["auroc_categories"] == ["first/part"]
    assert (row["auroc_difference"], row["auroc_interval"]) == (1.0, [1.0, 1.0])
    assert row["confirmed"] == {"second/part": {"auroc_difference": 1.0, "auroc_interval": [1.0, 1.0]}}
    json.dumps(found)


def test_the_interval_is_of_the_seeds_that_both_have(photos: list[LabelledFolder], tmp_path: Path) -> None:
    ours, peer = _Fake("ours", "ours"), _Fake("peer", "anomalib", sign=-1)
    ours.unfit, peer.unfit = [("second", 0)], [("second", 1)]
    fitted = _all_aurocs([ours, peer], photos, tmp_path / "kept")
    labels = {one.name: one.is_defective for one in photos}
    passes = {name: [Pass(1.0, 1.0)] for name in fitted}
    (row,) = summarize_passes([ours, peer], fitted, passes, photos=1, labels=labels)["ratios"]
    assert (row["auroc_difference"], row["auroc_interval"]) == (1.0, None)


def test_the_settings_for_resnet18_are_the_default_preset() -> None:
    flags = ["--settings=infra/runs/peers.yaml", "--variants=gaussian_resnet18,gaussian_resnet18_fp32"]
    comparison = read_comparison(parse_config(PeersBenchmarkConfig, flags))
    preset = get_random_preset("gaussian_resnet18", precision="bf16")
    assert comparison.make_detector_config("gaussian_resnet18", seed=0) == preset
    slow = comparison.make_detector_config("gaussian_resnet18_fp32", seed=0)
    assert slow == preset.model_copy(update={"variant": slow.variant, "precision": "fp32"})


def test_without_auroc_nothing_is_said_about_equality() -> None:
    contestants = [_Fake("ours", "ours"), _Fake("peer", "anomalib", has_auroc=False)]
    nothing: Score = lambda folder: np.zeros(0)  # noqa: E731
    fitted = {"ours": Fitted(nothing, 1.0, {"first": [0.8]}), "peer": Fitted(nothing, 1.0)}
    passes = {name: [Pass(1.0, 1.0)] for name in fitted}
    (row,) = summarize_passes(contestants, fitted, passes, photos=1, labels={})["ratios"]
    assert row["auroc_difference"] is None
    assert row["auroc_interval"] is None
    assert row["at_equal_auroc"] is None


def _contestant(side: str, cpu_ms: float, auroc: dict[str, list[float]] | None) -> dict[str, Any]:
    return {"side": side, "cpu_ms_per_photo": cpu_ms, "auroc": auroc}


def test_a_point_is_the_mean_over_counted_sets_of_the_mean_over_seeds() -> None:
    found = {
        "ours": _contestant("ours", 15.0, {"a/x": [0.8, 0.9], "b/y": [0.95], "apart/z": [0.1]}),
        "speed_alone": _contestant("anomalib", 80.0, None),
    }
    (point,) = list_points(found, ["apart"])
    assert (point["name"], point["side"], point["cpu_ms"]) == ("ours", "ours", 15.0)
    assert point["auroc"] == pytest.approx(90.0)


def test_the_picture_names_every_point_and_is_the_same_for_the_same_figures() -> None:
    found = {
        "ours<&>": _contestant("ours", 15.0, {"a/x": [0.9]}),
        "patchcore": _contestant("anomalib", 80.0, {"a/x": [0.8]}),
    }
    pictures = [draw_picture(found, confirm=[]) for _ in range(2)]
    assert pictures[0] == pictures[1]
    said = pictures[0].decode()
    assert "patchcore" in said
    assert "ours&lt;&amp;&gt;" in said
    assert "AUROC, mean over data sets" in said


def test_a_missing_anomalib_is_a_wrong_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"needed anomalib.*make bench-peers") as caught:
        benchmark.main(["peers"])
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_help_needs_no_anomalib(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^0$"):
        benchmark.main(["peers", "--help-all"])
    assert "--anomalib.coreset" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--peers", "padim"], "peers"),
        (["--variants", "differnet,differnet"], "variants names one twice"),
        (["--repeats", "0"], "repeats"),
        (["--anomalib.coreset-ratio", "0"], "coreset-ratio"),
        (["--data", "a/mtd", "--confirm", "elpv"], "confirm: elpv is none of the data sets mtd"),
    ],
)
def test_a_wrong_flag_is_told_by_its_name(flags: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_config(PeersBenchmarkConfig, flags)


@pytest.mark.skipif(find_spec("anomalib") is None, reason="anomalib is not installed: make bench-peers")
def test_both_sides_run_on_drawn_photos(drawn: Path, tmp_path: Path) -> None:
    output = tmp_path / "peers.json"
    flags = [f"--data={drawn / 'data'}", "--variants=differnet", "--peers=patchcore_alexnet", "--photos=2"]
    flags += ["--repeats=1", "--anomalib.image-size=128", "--anomalib.coreset=random", f"--output={output}"]
    assert benchmark.main(["peers", *flags]) == 0
    found = json.loads(output.read_text())
    assert set(found["contestants"]) == {"differnet", "patchcore_alexnet"}
    assert found["ratios"][0]["at_equal_auroc"] is None


def test_the_modules_that_measure_know_no_peer() -> None:
    assert not any("anomalib" in name for module in (peer_measurement, peer_report) for name in vars(module))
