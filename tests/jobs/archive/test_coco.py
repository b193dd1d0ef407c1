"""COCO files: a row for each annotation, whatever stands in it, and names below the archive or beside the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.archive.kinds import names_categories
from jobs.archive.manifest import list_archive
from jobs.archive.mvtec import list_as_category
from jobs.errors import EmptyArchiveError, RequestError
from jobs.tables.boxes import NO_BOX

IMAGES = [{"id": 1, "file_name": "tower/a.jpg", "width": 96, "height": 64}, {"id": 2, "file_name": "./tower/b.jpg"}]
CATEGORIES = [{"id": 7, "name": "glass insulator"}, {"id": 8, "name": "damper"}]
ANNOTATIONS: list[Any] = [
    {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1.2, 2, 30.1, 40]},
    {"id": 2, "image_id": 1, "category_id": 8, "bbox": [5, 5, 9, 9]},
    {"id": 3, "image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]},
]


def write(folder: Path, annotations: list[Any], **more: object) -> str:
    """Writes a COCO file and returns its URI."""
    content = {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES, **more}
    (folder / "boxes.json").write_text(json.dumps(content))
    return f"file://{folder}/boxes.json"


def test_names_are_below_the_archive_and_categories_are_those_of_the_file(tmp_path: Path) -> None:
    rows = list_archive("file:///photos/2026", boxes=write(tmp_path, ANNOTATIONS)).to_pylist()
    assert [(row["image_uri"], row["box"], row["category"]) for row in rows] == [
        ("file:///photos/2026/tower/a.jpg", "5,5,9,9", "damper"),
        ("file:///photos/2026/tower/a.jpg", "1,2,30,40", "glass_insulator"),
        ("file:///photos/2026/tower/b.jpg", "1,2,3,4", "glass_insulator"),
    ]


def test_a_coco_file_as_the_archive_has_its_photos_beside_it(tmp_path: Path) -> None:
    rows = list_archive(write(tmp_path, ANNOTATIONS))
    assert set(rows["image_uri"].to_pylist()) == {f"file://{tmp_path}/tower/{name}.jpg" for name in "ab"}


def test_without_categories_the_key_has_them(tmp_path: Path) -> None:
    rows = list_archive("file:///photos", boxes=write(tmp_path, ANNOTATIONS, categories=None))
    assert set(rows["category"].to_pylist()) == {"tower"}


@pytest.mark.parametrize("box", [None, [], [1, 2, 3], "here", {"x": 1}, [1, 2, float("nan"), 4], [10**30, 2, 3, 4]])
def test_an_annotation_without_a_box_is_a_row_that_is_refused_by_name(box: object, tmp_path: Path) -> None:
    rows = list_archive("file:///photos", boxes=write(tmp_path, [*ANNOTATIONS, {"image_id": 2, "bbox": box}]))
    assert len(rows) == 4
    assert len(set(rows["box"].to_pylist()) - {"5,5,9,9", "1,2,30,40", "1,2,3,4"}) == 1


def test_an_annotation_with_no_box_at_all_has_the_text_of_none(tmp_path: Path) -> None:
    rows = list_archive("file:///photos", boxes=write(tmp_path, [{"image_id": 2}]))
    assert rows["box"].to_pylist() == [NO_BOX]


def test_annotations_of_no_image_and_images_without_a_box_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [{"image_id": 99, "bbox": [1, 1, 1, 1]}, None, {"image_id": [1]}]
    assert len(list_archive("file:///photos", boxes=write(tmp_path, [*ANNOTATIONS[:2], *odd]))) == 2
    said = capsys.readouterr().err
    assert "3 annotations of no image" in said
    assert "1 images without a box" in said


def test_an_id_of_two_images_gives_its_boxes_to_neither(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [*IMAGES, {"id": 1, "file_name": "tower/c.jpg"}, {"id": 2, "file_name": "tower/b.jpg"}, {"id": 4}]
    rows = list_archive("file:///photos", boxes=write(tmp_path, ANNOTATIONS, images=images))
    assert rows["image_uri"].to_pylist() == ["file:///photos/tower/b.jpg"]
    said = capsys.readouterr().err
    assert "1 images without an id or a file_name" in said
    assert "2 images of an id that another one has too" in said
    assert "2 annotations of no image" in said


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"images": {}, "annotations": []}', "[" * 100_000, "\x00"])
def test_what_is_no_coco_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(RequestError, match=r"boxes\.json is no (COCO file|JSON)") as refusal:
        list_archive("file:///photos", boxes=f"file://{tmp_path}/boxes.json")
    assert "\n" not in str(refusal.value)


def test_a_list_has_no_folder_that_names_could_be_below(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="boxes need the folder"):
        list_archive("file:///photos/list.csv", boxes=write(tmp_path, ANNOTATIONS))


def test_a_training_takes_the_boxes_of_its_category(tmp_path: Path) -> None:
    boxes = write(tmp_path, ANNOTATIONS)
    rows = list_as_category("file:///photos", "glass_insulator", boxes=boxes)
    assert (rows["image_id"].to_pylist(), rows["box"].to_pylist()) == ([0, 1], ["1,2,30,40", "1,2,3,4"])
    with pytest.raises(EmptyArchiveError, match="no box of pole: its categories are damper, glass_insulator"):
        list_as_category("file:///photos", "pole", boxes=boxes)


def test_the_manifest_of_an_inventory_is_no_coco_file() -> None:
    assert not names_categories("s3://bucket/inventory/manifest.json")
    assert names_categories("s3://bucket/photos/boxes.json")
