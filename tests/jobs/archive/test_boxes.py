"""Boxes in lists: one row per photo and box, whatever stands in the columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.archive.manifest import list_archive
from jobs.tables.boxes import NO_BOX, format_box, format_value, parse_box

PHOTO = "s3://b/cap/1.jpg"


def list_boxes(text: str, folder: Path) -> list[str | None]:
    """Returns the column ``box`` of a CSV as it is listed."""
    (folder / "list.csv").write_text(text)
    return list_archive(f"file://{folder}/list.csv")["box"].to_pylist()  # type: ignore[no-any-return]


def test_each_box_of_a_photo_is_a_row_and_the_same_box_twice_is_one(tmp_path: Path) -> None:
    boxes = ["1,2,30,40", "1.0,2.0,30,40", "7,8,30,40"]
    rows = "\n".join(f"{PHOTO},{box}" for box in boxes)
    assert list_boxes(f"image_uri,x,y,width,height\n{rows}\n", tmp_path) == ["1,2,30,40", "7,8,30,40"]


def test_one_column_of_boxes_says_the_same_as_four(tmp_path: Path) -> None:
    assert list_boxes(f'image_uri,box\n{PHOTO},"1,2,30,40"\n{PHOTO},[1 2 30 41]\n', tmp_path) == [
        "1,2,30,40",
        "1,2,30,41",
    ]


@pytest.mark.parametrize("kind", [pa.int32(), pa.float64(), pa.string()])
def test_parquet_columns_of_any_type_are_boxes(kind: pa.DataType, tmp_path: Path) -> None:
    numbers = {name: pa.array([value]).cast(kind) for name, value in zip("xywh", (1, 2, 30, 40), strict=True)}
    columns = dict(zip(("x", "y", "width", "height"), numbers.values(), strict=True))
    pq.write_table(pa.table({"image_uri": [PHOTO], **columns}), tmp_path / "list.parquet")
    assert list_archive(f"file://{tmp_path}/list.parquet")["box"].to_pylist() == ["1,2,30,40"]


@pytest.mark.parametrize("value", [[1.0, 2.0, 30.0, 40.0], {"x": 1, "y": 2, "width": 30, "height": 40}])
def test_a_parquet_column_of_lists_or_structs_is_boxes(value: object, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": [PHOTO], "box": [value]}), tmp_path / "list.parquet")
    assert list_archive(f"file://{tmp_path}/list.parquet")["box"].to_pylist() == ["1,2,30,40"]


def test_a_list_that_has_boxes_and_none_for_one_photo_says_so_of_that_row(tmp_path: Path) -> None:
    found = list_boxes(f"image_uri,x,y,width,height\n{PHOTO},1,2,30,40\n{PHOTO},,,,\n", tmp_path)
    assert found == [NO_BOX, "1,2,30,40"]


def test_a_table_of_whole_photos_that_has_the_column_lists_whole_photos(tmp_path: Path) -> None:
    columns = {"image_uri": [PHOTO], "box": pa.nulls(1, pa.string()), "width": [96], "height": [64]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    assert list_archive(f"file://{tmp_path}/rows.parquet")["box"].to_pylist() == [None]


def test_boxes_of_several_categories_keep_their_photo_together(tmp_path: Path) -> None:
    photos = [
        (name, box, category) for name in ("a", "b") for box, category in (("9,9,9,9", "cap"), ("1,1,1,1", "pin"))
    ]
    rows = "\n".join(f's3://b/{name}.jpg,"{box}",{category}' for name, box, category in photos)
    (tmp_path / "list.csv").write_text(f"image_uri,box,category\n{rows}\n")
    found = list_archive(f"file://{tmp_path}/list.csv")
    assert [uri[-5] for uri in found["image_uri"].to_pylist()] == ["a", "a", "b", "b"]
    assert found["category"].to_pylist() == ["cap", "pin", "cap", "pin"]


@pytest.mark.parametrize(
    "numbers",
    [
        (1, 2, 0, 5),
        (1, 2, -3, 5),
        (1, 2, float("nan"), 5),
        (1, 2, float("inf"), 5),
        (10**400, 2, 3, 5),
        (2**40, 2, 3, 5),
        ("left", 2, 3, 5),
        ("1e999", "2", "3", "5"),
        (1, None, 3, 5),
        (True, 2, 3, 5),
        ("\x1b[2J", 2, 3, 5),
        ("9" * 5000, 2, 3, 5),
    ],
)
def test_what_is_no_box_keeps_its_text_and_is_refused_by_name(numbers: tuple[object, ...]) -> None:
    text = format_box(numbers)
    assert len(text) <= 100
    assert text.isprintable()
    with pytest.raises(ValueError, match="expected"):
        parse_box(text)


def test_edges_are_rounded_to_pixels_so_that_neighbours_meet_without_a_gap() -> None:
    assert [format_box(numbers) for numbers in ((0, 0, 10.5, 5), (10.5, 0, 10.5, 5))] == ["0,0,11,5", "11,0,10,5"]
    assert format_box((3.2, 4, 0.1, 0.1)) == "3,4,1,1"
    assert parse_box(format_value("(-1.4, 2, 30, 40)")) == (-1, 2, 30, 40)


@pytest.mark.parametrize(
    ("names", "row"),
    [("x,y,w,h", "1,2,30,40"), ("x,y,width", "1,2,30"), ("xmin,ymin,xmax,ymax", "1,2,31,42"), ("bbox", '"1,2,3,4"')],
)
def test_a_list_whose_boxes_are_not_read_says_that_its_rows_are_whole_photos(
    names: str, row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list_boxes(f"image_uri,{names}\n{PHOTO},{row}\n", tmp_path) == [None]
    said = capsys.readouterr().err
    assert "list.csv: no boxes are read from " in said
    assert "its rows are whole photos: boxes are the columns x, y, width and height" in said


@pytest.mark.parametrize("names", ["width,height", "x,y,width,height", "box"])
def test_a_list_of_boxes_or_of_sizes_says_nothing_of_boxes(
    names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = '"1,2,30,40"' if names == "box" else ",".join("1234"[: names.count(",") + 1])
    list_boxes(f"image_uri,{names}\n{PHOTO},{row}\n", tmp_path)
    assert "no boxes are read" not in capsys.readouterr().err
