"""Units of a training: what a request comes to before anything runs, and what makes two of them the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from jobs.detectors import registry
from jobs.errors import RequestError
from jobs.training.config import TrainConfig
from jobs.training.planning import plan_units
from jobs.training.units import TrainingUnit, find_trained, split_photos
from tests.support.training import request_tiny_training


def _config(drawn: Path, folder: Path, **more: object) -> TrainConfig:
    return TrainConfig.model_validate(request_tiny_training(drawn, folder) | more)


def _only(config: TrainConfig) -> TrainingUnit:
    (unit,) = plan_units(config)
    return unit


@pytest.fixture
def two_categories(drawn: Path, tmp_path: Path) -> Path:
    """Training data of cap and insulator, beside a folder that holds no category."""
    for category in ("cap", "insulator"):
        shutil.copytree(drawn / "data" / "insulator" / "train", tmp_path / "data" / category / "train")
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "notes" / "readme.txt").write_text("no photos")
    return tmp_path / "data"


def test_every_category_variant_and_seed_is_a_unit(drawn: Path, two_categories: Path, tmp_path: Path) -> None:
    config = _config(
        drawn, tmp_path, data=str(two_categories), category="all", variants="differnet,attentdiffernet_cbam", seeds=2
    )
    found = [(unit.config.category, unit.alias) for unit in plan_units(config)]
    aliases = [f"{variant}.seed{seed}" for variant in ("differnet", "attentdiffernet_cbam") for seed in (0, 1)]
    assert found == [(category, alias) for category in ("cap", "insulator") for alias in aliases]


def test_a_unit_is_the_request_for_itself_alone(drawn: Path, tmp_path: Path) -> None:
    """Its preset with the changes that were asked for; trained alone it is the same unit."""
    config = _config(drawn, tmp_path, variants="differnet,attentdiffernet_cbam", seeds=3)
    unit = plan_units(config)[5]
    assert {block.kind for block in unit.config.detector.attention.values()} == {"cbam"}
    assert (unit.config.detector.seed, unit.config.detector.flow.blocks) == (2, 2)
    assert _only(TrainConfig.model_validate(unit.config.model_dump(mode="json"))).key == unit.key


def test_seeds_begin_at_the_detectors_seed(drawn: Path, tmp_path: Path) -> None:
    request = request_tiny_training(drawn, tmp_path)
    request["detector"] = {**dict(request["detector"]), "seed": 7}  # type: ignore[call-overload]
    found = plan_units(TrainConfig.model_validate(request | {"seeds": 2}))
    assert [unit.alias for unit in found] == ["attentdiffernet_se.seed7", "attentdiffernet_se.seed8"]


def test_the_work_folder_is_that_of_the_same_training_and_of_no_other(drawn: Path, tmp_path: Path) -> None:
    unit = _only(_config(drawn, tmp_path))
    same = _config(drawn, tmp_path, workers=2, concurrent=3, alias=None, checkpoint_every_s=0, retrain=True)
    assert _only(same).work_folder == unit.work_folder
    others: list[dict[str, object]] = [
        {"optimizer": {"epochs": 21}},
        {"calibration_fraction": 0.3},
        {"validation_fraction": 0.1},
        {"variant": "differnet"},
        {"max_pixels": 10**6},
    ]
    keys = {_only(_config(drawn, tmp_path, **other)).key for other in others}
    assert len(keys | {unit.key}) == 6


def test_other_photos_are_another_training(drawn: Path, two_categories: Path, tmp_path: Path) -> None:
    config = _config(drawn, tmp_path, data=str(two_categories))
    before = _only(config).key
    photo = next((two_categories / "insulator" / "train" / "good").iterdir())
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert _only(config).key != before


def test_other_bytes_of_the_weights_file_or_another_program_are_another_training(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "backbone.safetensors"
    request = request_tiny_training(drawn, tmp_path)
    request["detector"] = {**dict(request["detector"]), "weights": str(weights)}  # type: ignore[call-overload]
    config = TrainConfig.model_validate(request)
    keys = set()
    for content in (b"first", b"second"):
        weights.write_bytes(content)
        keys |= {_only(config).key}
    monkeypatch.setattr("jobs.training.units.read_program_version", lambda: "0.2.0")
    keys |= {_only(config).key}
    assert len(keys) == 3
    weights.unlink()
    with pytest.raises(RequestError, match=f"--detector.weights {weights}"):
        plan_units(config)


@pytest.mark.parametrize(("validation", "sizes"), [(0.0, (48, 0, 12)), (0.1, (42, 6, 12))])
def test_calibration_photos_have_no_part_in_training_or_in_stopping(
    drawn: Path, tmp_path: Path, validation: float, sizes: tuple[int, int, int]
) -> None:
    splits = split_photos(60, config=_config(drawn, tmp_path, validation_fraction=validation))
    parts = (splits.training, splits.validation, splits.calibration)
    assert tuple(len(part) for part in parts) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(60))
    without = split_photos(60, config=_config(drawn, tmp_path))
    np.testing.assert_array_equal(splits.calibration, without.calibration)


def test_all_seeds_are_compared_on_the_same_photos_and_none_trains_on_them(drawn: Path, tmp_path: Path) -> None:
    units = plan_units(_config(drawn, tmp_path, seeds=3))
    splits = [split_photos(60, config=unit.config) for unit in units]
    for split in splits[1:]:
        for part in ("training", "validation", "calibration"):
            np.testing.assert_array_equal(getattr(split, part), getattr(splits[0], part))
    other = split_photos(60, config=_config(drawn, tmp_path, seeds=3, split_seed=1))
    assert other.calibration.tolist() != splits[0].calibration.tolist()


def test_no_group_is_in_two_parts_and_each_that_calibrates_gives_one_photo(drawn: Path, tmp_path: Path) -> None:
    groups = np.concatenate([np.arange(40), np.random.default_rng(0).integers(0, 40, 160)])
    config = _config(drawn, tmp_path, validation_fraction=0.1)
    splits = split_photos(200, config=config, groups=groups)
    parts = [set(groups[part]) for part in (splits.training, splits.validation, splits.calibration)]
    assert [len(part) for part in parts] == [28, 4, 8]
    assert len(parts[0] | parts[1] | parts[2]) == 40
    assert len(splits.calibration) == 8
    assert len(splits.training) == int(np.isin(groups, list(parts[0])).sum())


def test_how_photos_are_grouped_and_split_is_part_of_what_a_training_is(drawn: Path, tmp_path: Path) -> None:
    more: list[dict[str, object]] = [
        {},
        {"split_seed": 1},
        {"group_by": "photo"},
        {"group_by": "site", "key_pattern": r"(?P<site>\d)"},
        {"group_by": "site", "key_pattern": r"(?P<site>\d\d)"},
    ]
    assert len({_only(_config(drawn, tmp_path, **change)).key for change in more}) == 5


def test_validation_photos_are_held_out_where_stopping_or_seeds_need_them(drawn: Path, tmp_path: Path) -> None:
    assert _config(drawn, tmp_path).validation_share == 0
    assert _config(drawn, tmp_path, seeds=2).validation_share == 0.1
    assert _config(drawn, tmp_path, optimizer={"patience": 3}).validation_share == 0.1
    assert _only(_config(drawn, tmp_path, seeds=1, validation_fraction=0.2)).config.validation_share == 0.2


def test_a_unit_is_trained_already_if_its_alias_leads_to_the_same_training(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = _only(_config(drawn, tmp_path))
    assert find_trained(unit) is None
    monkeypatch.setattr(registry, "read_aliases", lambda detectors, category: {"attentdiffernet_se.seed0": "a" * 16})
    assert find_trained(unit) is None  # the alias outlived its detector
    for key, expected in ((unit.key, "a" * 16), ("another training", None)):
        monkeypatch.setattr(registry, "read_metrics", lambda *_, detector_id, key=key: {"training_key": key})
        assert (find_trained(unit) or (None,))[0] == expected


def test_data_without_a_category_is_refused(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no category: expected photos in <category>/train/good/"):
        plan_units(_config(drawn, tmp_path, data=str(tmp_path / "empty"), category="all"))


def test_a_folder_that_cannot_be_a_category_is_named(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "data" / "insulator" / "train", tmp_path / "data" / "a cap" / "train")
    with pytest.raises(RequestError, match=r"has a folder that cannot be a category: .*'a cap'"):
        plan_units(_config(drawn, tmp_path, data=str(tmp_path / "data"), category="all"))


def test_too_few_photos_to_calibrate_are_told(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_units(_config(drawn, tmp_path))
    assert "12 held-out photos of insulator cannot support a false-alarm rate of 0.05: 19 are needed" in (
        capsys.readouterr().out
    )


def test_one_photo_is_too_few(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "insulator" / "train" / "good"
    folder.mkdir(parents=True)
    shutil.copy(next((drawn / "data" / "insulator" / "train" / "good").iterdir()), folder)
    with pytest.raises(RequestError, match="expected at least 2 flawless photos"):
        plan_units(_config(drawn, tmp_path, data=str(tmp_path / "data")))


def test_photos_on_a_list_do_not_train(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = _only(_config(drawn, tmp_path)).manifest["image_uri"].to_pylist()
    (tmp_path / "bad.txt").write_text(f"{everything[3]}\ninsulator/train/good/{everything[5].rsplit('/', 1)[1]}\n")
    manifest = _only(_config(drawn, tmp_path, exclude=str(tmp_path / "bad.txt"))).manifest
    assert manifest["image_uri"].to_pylist() == [uri for n, uri in enumerate(everything) if n not in (3, 5)]
    assert manifest["image_id"].to_pylist() == list(range(58))
    assert "left out 2 of 60 photos of insulator" in capsys.readouterr().out


def test_a_list_of_other_photos_is_refused(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("cap/train/good/1.jpg\n")
    with pytest.raises(RequestError, match="names none of the 60 photos of insulator: expected URIs, or keys below"):
        plan_units(_config(drawn, tmp_path, exclude=str(tmp_path / "bad.txt")))
