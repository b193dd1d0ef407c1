"""The comparison of variants with each other and with baselines, on small drawn photos."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from jobs import comparison, storage
from jobs.archive.mvtec import list_labelled
from jobs.cli import parse_config
from jobs.errors import JobError, RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.comparison_run import list_categories
from jobs.evaluation.comparison_tasks import ComparisonPhotos, decode_category, learn_attention, train_and_test
from jobs.evaluation.comparison_units import ComparisonUnit, plan_units
from jobs.evaluation.flawless import make_outcome_promises
from jobs.tables.schema import EVALUATED, MANIFEST
from model.baselines import BASELINES
from model.detector import AttentDifferNet
from model.image import decode_image
from model.pictures.rules import PixelRules
from model.presets import PRESETS, get_preset
from model.statistics.evaluation import compute_auroc
from model.training.loop import train
from model.training.photos import InMemory

_TINY = {
    "weights": "random",
    "image_size": 64,
    "scales": 1,
    "views": 2,
    "train_views": 1,
    "train_angles": "scoring",
    "feature_scaling": "global",
    "pretext": {"steps": 2, "pairs": 2},
    "flow": {"blocks": 1, "hidden_width": 8, "hidden_layers": 1},
}


def _request(data: Path, output: Path, **changes: object) -> dict[str, Any]:
    request = {
        "data": [str(data / "first"), str(data / "second")],
        "output": str(output),
        "variants": ["differnet", "attentdiffernet_se"],
        "seeds": 2,
        "tasks": 2,
        "optimizer": {"epochs": 2, "batch_size": 8},
        "detector": _TINY,
    }
    return request | changes


@pytest.fixture(scope="module")
def data(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of a few photos: 16 to train, 6 flawless and 6 defective to test; one test photo is broken."""
    folder = tmp_path_factory.mktemp("sets")
    source = drawn / "data" / "insulator"
    for number, name in enumerate(("first", "second")):
        for part, count in (("train/good", 16), ("test/good", 6), ("test/missing_cap", 3), ("test/rust", 3)):
            target = folder / name / "insulator" / part
            target.mkdir(parents=True)
            for path in sorted((source / part).iterdir())[number * count :][:count]:
                (target / path.name).write_bytes(path.read_bytes())
    (folder / "first" / "insulator" / "test" / "rust" / "zz.jpg").write_bytes(b"<html>")
    return folder


@pytest.fixture(scope="module")
def compared(cluster: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison with one variant that cannot be trained."""
    output = tmp_path_factory.mktemp("compared")
    request = output / "request.json"  # JSON is YAML
    diverging = {
        "attention": {"conv5": {"kind": "se"}},
        "attention_training": "pretext",
        "pretext": {"learning_rate": 1e30},
    }
    changes = {"custom": {"diverging": diverging}, "variants": ["differnet", "attentdiffernet_se", "diverging"]}
    request.write_text(json.dumps(_request(data, output, **changes)))
    assert comparison.main(["--config", str(request)]) == 1
    return output


def _found(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "comparison.json").read_text()))


def test_other_bytes_of_the_weights_file_or_another_program_are_another_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "backbone.safetensors"
    request = {"data": ["unused"], "output": "out", "variants": ["differnet"], "seeds": 1, "baselines": False}
    config = ComparisonConfig.model_validate({**request, "detector": {"weights": str(weights)}})
    places = set()
    for content in (b"first", b"second"):
        weights.write_bytes(content)
        places |= {unit.locate_outcome("out") for unit in plan_units(config, {"a/b": MANIFEST.empty_table()})}
    monkeypatch.setattr("jobs.evaluation.comparison_units.read_program_version", lambda: "0.2.0")
    places |= {unit.locate_outcome("out") for unit in plan_units(config, {"a/b": MANIFEST.empty_table()})}
    assert len(places) == 3


def test_every_test_photo_has_a_row_per_detector_and_baseline(compared: Path) -> None:
    rows = pq.read_table(compared / "scores.parquet")
    assert rows.schema == EVALUATED
    detectors = 2 * 2 + len(BASELINES) + 1  # two variants and one baseline have two seeds
    assert len(rows) == detectors * (12 + 13)
    lost = [row for row in rows.to_pylist() if row["image_uri"].endswith("zz.jpg")]
    assert len(lost) == detectors
    assert all(row["status"] == "unreadable" and row["error"].startswith("not_an_image: ") for row in lost)
    assert {row["label"] for row in rows.to_pylist()} == {"good", "missing_cap", "rust"}


def test_each_method_has_a_row_of_what_it_came_to_and_cost(compared: Path) -> None:
    rows = pq.read_table(compared / "methods.parquet").to_pylist()
    assert len(rows) == 2 * (2 * 2 + len(BASELINES) + 1)  # the variant that failed has none
    for row in rows:
        is_variant = row["variant"] in PRESETS
        assert 0 <= row["auroc"] <= 1
        assert 0 <= row["recall_at_5_percent"] <= 1
        assert (row["parameters"] > 0) == is_variant
        assert (row["train_s"] > 0) == is_variant
        assert row["score_s"] > 0
        assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 10**7
        assert json.loads(row["versions"])["torch"] == str(torch.__version__)


def test_shared_attention_is_learnt_once_also_where_the_run_was_cut_off(
    cluster: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, object] = {"pretext_on": "all", "variants": ["attentdiffernet_se"], "seeds": 1}
    (tmp_path / "request.json").write_text(json.dumps(_request(data, tmp_path, baselines=False, **changes)))
    argv = ["--config", str(tmp_path / "request.json")]
    assert comparison.main(argv) == 0
    first = pq.read_table(tmp_path / "scores.parquet")
    shutil.rmtree(tmp_path / "units")
    capsys.readouterr()
    assert comparison.main(argv) == 0
    assert "of 1 variant(s) and seed(s), 1 of them learnt before" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "scores.parquet").equals(first)


def test_a_unit_is_trained_on_the_flawless_photos_and_scored_after_the_last_epoch(compared: Path, data: Path) -> None:
    config = ComparisonConfig.model_validate(_request(data, compared))

    def photos(part: str) -> tuple[list[str], torch.Tensor]:
        paths = sorted((data / "second" / "insulator" / part).rglob("*.jpg"))
        return [f"file://{path}" for path in paths], torch.stack([decode_image(p.read_bytes(), size=64) for p in paths])

    detector = AttentDifferNet(config.make_detector_config("attentdiffernet_se", seed=1))
    train(
        detector,
        InMemory(photos("train")[1]),
        optimizer=config.optimizer,
        on_epoch=lambda metrics, snapshot: None,
    )
    uris, images = photos("test")
    scores = dict(zip(uris, detector.score(images).tolist(), strict=True))

    rows = [
        row
        for row in pq.read_table(compared / "scores.parquet").to_pylist()
        if (row["category"], row["variant"], row["seed"]) == ("second/insulator", "attentdiffernet_se", 1)
    ]
    # Another process; the rounding of a matrix product may depend on the alignment of its memory.
    assert {row["image_uri"]: row["score"] for row in rows} == pytest.approx(scores, rel=1e-5)
    labels = np.array([row["label"] != "good" for row in rows])
    expected = compute_auroc(labels, np.array([row["score"] for row in rows]))
    summary = next(one for one in _found(compared)["variants"] if one["variant"] == "attentdiffernet_se")
    other = auroc_of(compared, category="second/insulator", variant="attentdiffernet_se", seed=0)
    assert summary["by_category"]["second/insulator"]["auroc"]["mean"] == pytest.approx((expected + other) / 2)


def auroc_of(folder: Path, *, category: str, variant: str, seed: int) -> float:
    rows = [
        row
        for row in pq.read_table(folder / "scores.parquet").to_pylist()
        if (row["category"], row["variant"], row["seed"], row["status"]) == (category, variant, seed, "scored")
    ]
    return compute_auroc(np.array([row["label"] != "good" for row in rows]), np.array([row["score"] for row in rows]))


def test_the_table_names_variants_baselines_differences_failures_and_settings(compared: Path) -> None:
    text = (compared / "comparison.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in table[0].split("|")[1:5]] == [
        "variant",
        "first/insulator",
        "second/insulator",
        "mean",
    ]
    names = [line.split("|")[1].strip() for line in table[2:]]
    assert names[:2] == ["`differnet`", "`attentdiffernet_se`"]
    assert names[2:7] == [f"baseline `{name}`" for name in BASELINES]
    assert "Difference of AUROC to `differnet`" in text
    found = _found(compared)
    baselines = {
        one["variant"]: one["mean"]["auroc"]["mean"] for one in found["variants"] if one["variant"] in BASELINES
    }
    best = max(baselines.values())
    against = {one["reference"] for one in found["comparisons"]} - {"differnet"}
    assert {baselines[name] for name in against} == {best}
    assert text.count("Failed: `diverging` on ") == 4
    assert "training diverged" in text
    assert '"image_size": 64' in text
    assert (compared / "histograms" / "first" / "insulator.patch_memory.png").exists()


def test_a_rerun_does_only_what_is_not_finished_and_finds_the_same(
    compared: Path, data: Path, tmp_path: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (compared / "units").iterdir():
        storage.write(f"file://{tmp_path}/units/{path.name}", path.read_bytes())
    gone = next((tmp_path / "units").glob("first-insulator.differnet.seed1.*"))
    gone.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "units").iterdir()}
    request = tmp_path / "request.json"
    request.write_text(json.dumps(_request(data, tmp_path)))
    assert comparison.main(["--config", str(request)]) == 0
    assert "comparison of 20 units, 19 of them finished before" in capsys.readouterr().out
    assert {name: (tmp_path / "units" / name).stat().st_mtime_ns for name in before} == before
    again = json.loads(gone.read_text())["scores"]
    first = json.loads((compared / "units" / gone.name).read_text())["scores"]
    assert again == pytest.approx(first, rel=1e-5)  # rounding, as above


def _plan_units(data: Path, **changes: object) -> dict[str, ComparisonUnit]:
    """Units by the file they are kept in."""
    config = ComparisonConfig.model_validate(_request(data, Path("/out"), **changes))
    manifests = {f"{name}/insulator": list_labelled(f"file://{data}/{name}") for name in ("first", "second")}
    return {unit.locate_outcome(config.output): unit for unit in plan_units(config, manifests)}


def test_photos_that_a_pattern_names_are_in_no_set(data: Path) -> None:
    count = {}
    for name, changes in {"all": {}, "some": {"include": ["*.jpg"], "exclude": ["test/rust/*"]}}.items():
        config = ComparisonConfig.model_validate(_request(data, Path("/out"), **changes))
        count[name] = {category: len(rows) for category, rows in list_categories(config).items()}
    assert count["all"] == {"first/insulator": 29, "second/insulator": 28}
    assert count["some"] == {"first/insulator": 25, "second/insulator": 25}


@pytest.mark.slow
def test_units_of_other_settings_are_other_units_and_unseeded_baselines_stay(data: Path) -> None:
    plain = _plan_units(data)
    assert len(plain) == 2 * (2 * 2 + len(BASELINES) + 1)
    longer = _plan_units(data, optimizer={"epochs": 3})
    assert {unit.variant for uri, unit in longer.items() if uri in plain} == set(BASELINES)
    together = _plan_units(data, pretext_on="all")
    assert {unit.variant for uri, unit in together.items() if uri not in plain} == {"attentdiffernet_se"}
    assert plain.keys() < _plan_units(data, seeds=3).keys()


def test_settings_are_equal_for_all_variants_but_for_what_a_preset_is(data: Path) -> None:
    config = ComparisonConfig.model_validate(_request(data, Path("/out"), variants=list(PRESETS)))
    first, *others = (config.make_detector_config(variant, seed=4).model_dump() for variant in PRESETS)
    assert (first["seed"], first["image_size"], first["flow"]["hidden_width"]) == (4, 64, 8)
    for variant, other in zip(list(PRESETS)[1:], others, strict=True):
        differing = {name for name in first if first[name] != other[name]}
        assert differing <= {"variant", *PRESETS[variant]}
        for name in PRESETS[variant].keys() - {"flow"}:
            assert other[name] == get_preset(variant).model_dump()[name]
    assert (others[0]["flow"], others[1]["flow"]) == (first["flow"], first["flow"])
    best = others[-1]["flow"]
    assert (best["start"], best["hidden_width"], best["hidden_layers"]) == (
        "identity",
        256,
        first["flow"]["hidden_layers"],
    )


@pytest.mark.slow
def test_attention_that_learnt_from_all_categories_is_the_one_that_scores(data: Path) -> None:
    def decoded(name: str) -> ComparisonPhotos:
        return decode_category(list_labelled(f"file://{data}/{name}"), 64, 10**8)

    first, second = decoded("first"), decoded("second")
    unit = next(unit for unit in _plan_units(data, pretext_on="all").values() if unit.variant == "attentdiffernet_se")

    alone, both, swapped = (
        learn_attention(unit.detector, None, *given) for given in ((first,), (first, second), (second, first))
    )
    assert all(torch.equal(both[name], alone[name]) for name in both) is False
    assert all(torch.equal(both[name], swapped[name]) for name in both) is False
    outcomes = [train_and_test(unit, first, None, given)["scores"] for given in (None, both)]
    assert outcomes[0] != outcomes[1]
    assert list(first.lost) == [f"file://{data}/first/insulator/test/rust/zz.jpg"]
    assert (len(first.train), len(first.test)) == (16, 12)


def test_calibration_photos_train_nothing_and_promise_a_rate_that_is_checked(data: Path) -> None:
    rows = list_labelled(f"file://{data}/first")
    photos = decode_category(rows, 64, 10**8, calibration_fraction=0.25)
    assert (len(photos.train), len(photos.calibration), len(photos.test)) == (12, 4, 12)
    config = ComparisonConfig.model_validate(_request(data, data / "out", calibration_fraction=0.25))
    units = plan_units(config, {"first/insulator": rows})
    assert (
        units[0].photos_hash
        != plan_units(config.model_copy(update={"calibration_fraction": 0.0}), {"first/insulator": rows})[0].photos_hash
    )
    differnet, baseline = (
        next(unit for unit in units if unit.variant == name) for name in ("differnet", "mahalanobis")
    )
    for unit in (differnet, baseline):
        outcome = train_and_test(unit, photos, None, None)
        assert len(outcome["calibration"]) == 4
        assert len(outcome["scores"]) == 12
        (promise,) = make_outcome_promises([outcome], false_alarm_rate=0.2).values()
        assert promise.photos == 4
        assert promise.threshold == max(outcome["calibration"])


def test_copies_stay_on_one_side_of_a_comparison_and_calibrate_once(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "first", tmp_path / "first")
    good = tmp_path / "first" / "insulator" / "train" / "good"
    for path in sorted(good.glob("*.jpg")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    photos = decode_category(list_labelled(f"file://{tmp_path}/first"), 64, 10**8, calibration_fraction=0.25)
    assert (len(photos.train), len(photos.calibration)) == (24, 4)
    trained = {photo.tobytes() for photo in photos.train}
    assert trained.isdisjoint(photo.tobytes() for photo in photos.calibration)
    asked = {"calibration_fraction": 0.25, "group_by": ["number"], "key_pattern": r"(copy-)?(?P<number>\d)"}
    ComparisonConfig.model_validate(_request(tmp_path, tmp_path / "out", **asked))
    with pytest.raises(ValidationError, match="group_by is there for calibration_fraction"):
        ComparisonConfig.model_validate(_request(tmp_path, tmp_path / "out", **(asked | {"calibration_fraction": 0.0})))
    rows = list_labelled(f"file://{tmp_path}/first")
    with pytest.raises(JobError, match="no photo of insulator has a group site"):
        decode_category(rows, 64, 10**8, PixelRules(), 0.25, ["site"], "(?P<site>north|south)/")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--variants", "differnet,xx"], "unknown variant 'xx', expected some of differnet, attentdiffernet_se"),
        (["--detector.seed", "3"], "--detector: seed cannot be set"),
        (["--detector.image-size", "65"], "image_size"),
        (["--optimizer.patience", "3"], "patience needs held-out photos"),
        (["--custom", '{"mine": {"scales": 9}}', "--variants", "mine"], "variant mine: scales"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(argv: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=rf"^[^\n]*{re.escape(said)}[^\n]*$"):
        parse_config(ComparisonConfig, ["--data", "/a,/b", "--output", "/o", *argv])


def test_the_old_name_of_the_baselines_is_refused_with_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "comparison.yaml"
    file.write_text("{anchors: false, data: [/a], output: /o}")
    with pytest.raises(RequestError, match="anchors is called baselines now"):
        parse_config(ComparisonConfig, ["--config", str(file)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"custom": {"mahalanobis": {}}, "variants": ["mahalanobis"]}, "name of a baseline"),
        ({"detector": {**_TINY, "weights": "/nowhere.safetensors"}}, "/nowhere.safetensors of alexnet: "),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_cluster_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], said: str
) -> None:
    monkeypatch.setattr("jobs.evaluation.comparison_run.start_ray", lambda: pytest.fail("the cluster was touched"))
    request = tmp_path / "request.json"
    request.write_text(json.dumps(_request(data, tmp_path, **changes)))
    with pytest.raises(RequestError, match=said):
        comparison.main(["--config", str(request)])


def test_a_data_set_without_defective_photos_is_refused(data: Path, tmp_path: Path) -> None:
    for number in range(5):
        for part in ("train/good", "test/good"):
            storage.write(f"file://{tmp_path}/set/tower/{part}/{number}.jpg", b"")
    with pytest.raises(RequestError, match=r"set/tower needs .* got 5, 5 and 0"):
        comparison.main(["--data", f"{tmp_path}/set", "--output", str(tmp_path)])


def test_leaving_one_set_out_reports_a_choice_for_every_set_and_computes_features_once(
    cluster: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, request = tmp_path / "out", tmp_path / "request.json"
    changes: dict[str, Any] = {
        "variants": ["differnet", "gaussian"],
        "custom": {"gaussian": {"flow": {"blocks": 0}}},
        "seeds": 1,
        "baselines": False,
        "leave_one_set_out": True,
        "detector": {**_TINY, "feature_scaling": "whiten"},
    }
    request.write_text(json.dumps(_request(data, output, **changes)))
    assert comparison.main(["--config", str(request)]) == 0
    choices = _found(output)["leave_one_set_out"]
    assert [one["data_set"] for one in choices] == ["first", "second"]
    summaries = {one["variant"]: one["by_category"] for one in _found(output)["variants"]}
    for one, other in zip(choices, ("second", "first"), strict=True):
        means = {name: found[f"{other}/insulator"]["auroc"]["mean"] for name, found in summaries.items()}
        assert one["variant"] == max(means, key=lambda name: means[name])
        assert one["auroc"] == summaries[one["variant"]][f"{one['data_set']}/insulator"]["auroc"]["mean"]
    assert "mean of the sets that choose" in (output / "comparison.md").read_text()
    assert len(list((output / "features").iterdir())) == 2  # one a set, for both variants

    capsys.readouterr()
    assert comparison.main(["--config", str(request)]) == 0
    assert "4 units, 4 of them finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confirm": ["third"]}, "third is none of the data sets first, second"),
        ({"confirm": ["first", "second"]}, "confirm names all data sets: nothing is left to compare on"),
        ({"leave_one_set_out": True, "confirm": ["third"]}, "third is none of the data sets first, second"),
        ({"leave_one_set_out": True, "confirm": ["second"]}, "at least 2 data sets beside those that confirm, got 1"),
    ],
)
def test_sets_that_leave_nothing_to_compare_on_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ComparisonConfig.model_validate(_request(Path("sets"), Path("out"), **changes))
