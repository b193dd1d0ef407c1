"""Data sets in MVTec layout: each photo with its split and label, and nothing else of what lies there."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import storage
from jobs.archive.mvtec import LABELLED, list_as_category, list_labelled, locate_flawless, select_split
from jobs.errors import EmptyArchiveError, RequestError

PHOTOS = (
    "bottle/train/good/1.jpg",
    "bottle/train/good/deep/2.jpg",
    "bottle/validation/crack/3.jpg",
    "bottle/test/good/4.jpg",
    "bottle/test/test/5.jpg",
    "cable/test/bent/6.jpg",
)
OTHERS = (
    "bottle/readme.txt",
    "bottle/train/crack/7.jpg",
    "bottle/train/good.jpg",
    "bottle/ground_truth/crack/3.png",
    "bottle/test/8.jpg",
)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A data set of two categories."""
    for name in (*PHOTOS, *OTHERS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return f"file://{tmp_path}"


def test_photos_come_with_split_and_label_and_what_lies_elsewhere_is_left_out(data: str) -> None:
    rows = list_labelled(data)
    assert rows.schema == LABELLED
    assert [
        (row["image_uri"].removeprefix(data + "/"), row["category"], row["split"], row["label"], row["site"])
        for row in rows.to_pylist()
    ] == [
        ("bottle/test/good/4.jpg", "bottle", "test", "good", None),
        ("bottle/test/test/5.jpg", "bottle", "test", "test", None),
        ("bottle/train/good/1.jpg", "bottle", "train", "good", None),
        ("bottle/train/good/deep/2.jpg", "bottle", "train", "good", None),
        ("bottle/validation/crack/3.jpg", "bottle", "validation", "crack", None),
        ("cable/test/bent/6.jpg", "cable", "test", "bent", None),
    ]


def test_one_category_is_listed_as_among_all(data: str) -> None:
    among_all = [row for row in list_labelled(data).to_pylist() if row["category"] == "bottle"]
    alone = list_labelled(data, category="bottle").to_pylist()
    assert [row | {"image_id": 0} for row in alone] == [row | {"image_id": 0} for row in among_all]


def test_flawless_photos_have_their_category_wherever_they_lie(data: str) -> None:
    assert list_as_category(locate_flawless(data, "bottle"), "bottle")["category"].to_pylist() == ["bottle"] * 2
    elsewhere = locate_flawless(data, "bottle", folder="cable/test/bent")
    assert list_as_category(elsewhere, "bottle")["category"].to_pylist() == ["bottle"]


def test_what_is_not_there_is_empty_and_flawless_photos_must_be_there(data: str) -> None:
    assert len(select_split(list_labelled(data, category="cable"), "train")) == 0
    assert list_labelled(data, category="none") == LABELLED.empty_table()
    with pytest.raises(EmptyArchiveError, match=r"no photo in .*cable/train/good: .*cable has no folder train"):
        list_as_category(locate_flawless(data, "cable"), "cable")


@pytest.mark.parametrize("folder", ["train/Good", "Train/good", "test/GOOD", "TEST/bent"])
def test_a_folder_in_other_letters_is_named_and_never_taken_for_none_or_for_a_defect(data: str, folder: str) -> None:
    storage.write(f"{data}/nut/{folder}/1.jpg", b"x")
    right = folder.lower()
    with pytest.raises(RequestError, match=rf"nut/{folder} must be called {right}, in these letters"):
        list_labelled(data)
