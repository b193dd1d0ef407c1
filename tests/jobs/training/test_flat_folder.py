"""Photos of one category in any folder, `jobs.train --good FOLDER`, and what is said of other layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import storage
from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.training.config import TrainConfig
from jobs.training.planning import plan_units


def _config(*flags: str) -> TrainConfig:
    return parse_config(TrainConfig, ["--detectors", "/registry", *flags])


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """A folder with three files, one of them deeper."""
    for name in ("1.jpg", "2.jpg", "line-7/3.jpg"):
        storage.write(f"file://{tmp_path}/flat/{name}", b"x")
    return f"{tmp_path}/flat"


def test_a_folder_of_flawless_photos_is_a_category(photos: str) -> None:
    (unit,) = plan_units(_config("--good", photos, "--category", "pole"))
    assert sorted(Path(uri).name for uri in unit.manifest["image_uri"].to_pylist()) == ["1.jpg", "2.jpg", "3.jpg"]
    assert unit.manifest["category"].to_pylist() == ["pole"] * 3


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--include", "*.jpg"], ["1.jpg", "2.jpg", "3.jpg"]),
        (["--exclude", "*.txt,line-7/*"], ["1.jpg", "2.jpg"]),
        (["--include", "[1.jpg,3.jpg,notes.txt]", "--exclude", "notes*"], ["1.jpg", "3.jpg"]),
    ],
)
def test_patterns_choose_the_photos_of_a_training(photos: str, flags: list[str], names: list[str]) -> None:
    storage.write(f"file://{photos}/notes.txt", b"x")
    flags = [flag.strip("[]") for flag in flags]
    (unit,) = plan_units(_config("--good", photos, "--category", "pole", *flags))
    assert sorted(Path(uri).name for uri in unit.manifest["image_uri"].to_pylist()) == names
    assert unit.manifest["image_id"].to_pylist() == list(range(len(names)))


def test_a_list_of_photos_to_leave_out_is_known_by_its_name(photos: str, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("2.jpg\n")
    (unit,) = plan_units(_config("--good", photos, "--category", "pole", "--exclude", str(tmp_path / "bad.txt")))
    assert sorted(Path(uri).name for uri in unit.manifest["image_uri"].to_pylist()) == ["1.jpg", "3.jpg"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--category", "pole"], "needed --data FOLDER in MVTec layout, or --good FOLDER"),
        (["--category", "pole", "--data", "/d", "--good", "/g"], "give one of them"),
        (["--category", "all", "--good", "/g"], "--good has photos of one category"),
        (["--category", "pole,cap", "--good", "/g"], "--good has photos of one category"),
    ],
)
def test_data_and_good_are_told_apart(flags: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        _config(*flags)


@pytest.mark.parametrize("category", ["pole", "all"])
def test_a_flat_folder_given_as_data_is_answered_with_the_right_flags(photos: str, category: str) -> None:
    name = "pole" if category == "pole" else "NAME"
    with pytest.raises(RequestError, match=f"can be given as --good file://{photos} --category {name}"):
        plan_units(_config("--data", photos, "--category", category))


def test_a_misspelt_category_is_answered_with_the_right_one(tmp_path: Path) -> None:
    storage.write(f"file://{tmp_path}/insulator/train/good/1.jpg", b"x")
    with pytest.raises(RequestError, match=r"no flawless photos of insulater: .*did you mean insulator"):
        plan_units(_config("--data", str(tmp_path), "--category", "insulater"))
