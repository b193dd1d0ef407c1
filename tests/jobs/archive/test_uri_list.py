"""Lists as other programs write them: suffixes, parts, types and ways to name a file."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.archive.manifest import list_archive
from jobs.errors import RequestError

PHOTO = "s3://b/cap/1.jpg"


@pytest.mark.parametrize("name", ["LIST.CSV", "list.Csv.GZ", "list.txt", "list.TXT.gz"])
def test_a_list_is_known_by_its_suffix_in_any_case(name: str, tmp_path: Path) -> None:
    text = (PHOTO if ".txt" in name.lower() else f"image_uri\n{PHOTO}").encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
    assert list_archive(f"file://{tmp_path}/{name}")["image_uri"].to_pylist() == [PHOTO]


def test_a_text_list_holds_a_uri_or_an_absolute_path_a_line(tmp_path: Path) -> None:
    lines = ["s3://b/cap/a,b.jpg", 's3://b/cap/"q".jpg', "", f"{tmp_path}/x/../cap/1.jpg", "file://localhost/d/2.jpg"]
    (tmp_path / "list.txt").write_text("\r\n".join(lines))
    expected = [lines[0], lines[1], f"file://{tmp_path}/cap/1.jpg", "file:///d/2.jpg"]
    assert sorted(list_archive(f"file://{tmp_path}/list.txt")["image_uri"].to_pylist()) == sorted(expected)


def test_blanks_before_lines_of_a_text_list_and_blank_lines_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"  {PHOTO}\n   \n\t{PHOTO} x\n")
    assert list_archive(f"file://{tmp_path}/list.txt")["image_uri"].to_pylist() == [PHOTO, f"{PHOTO} x"]


@pytest.mark.parametrize("blank", [",,", ", ,"])
def test_rows_that_say_nothing_are_left_out_and_counted(
    blank: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(f"image_uri,category,site\n{PHOTO},cap,\n{blank}\n{blank}\n")
    assert list_archive(f"file://{tmp_path}/list.csv")["image_uri"].to_pylist() == [PHOTO]
    assert "list.csv: left out 2 rows without an image_uri and all else" in capsys.readouterr().err


def test_a_row_without_a_uri_that_says_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"image_uri,category\n{PHOTO},cap\n,cap\n")
    with pytest.raises(RequestError, match=r"column image_uri of .*, got None"):
        list_archive(f"file://{tmp_path}/list.csv")


def test_parts_of_0_bytes_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").touch()
    (tmp_path / "part-1.csv").write_text(f"image_uri\n{PHOTO}\n")
    assert list_archive(f"file://{tmp_path}")["image_uri"].to_pylist() == [PHOTO]


def test_a_row_longer_than_a_block_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"image_uri,site\n{PHOTO},{'x' * 3_000_000}\n")
    with pytest.raises(RequestError, match="a row of more than 1 MB, as after a quotation mark that nothing closes"):
        list_archive(f"file://{tmp_path}/list.csv")


def test_a_table_that_is_called_text_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"image_bytes,image_uri\n7,{PHOTO}\n")
    assert list_archive(f"file://{tmp_path}/list.txt")["image_bytes"].to_pylist() == [7]


@pytest.mark.parametrize("name", ["list.parquet", "night", "key=value/photos"])
def test_a_folder_of_sparks_part_files_is_one_list(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    for number in range(2):
        part = pa.table({"image_uri": [f"s3://b/cap/{number}.jpg"]})
        pq.write_table(part, folder / f"part-0000{number}-a1b2.c000.snappy.parquet")
        (folder / f".part-0000{number}-a1b2.c000.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")
    found = list_archive(f"file://{folder}")
    assert found["image_uri"].to_pylist() == ["s3://b/cap/0.jpg", "s3://b/cap/1.jpg"]
    assert found["category"].to_pylist() == ["cap", "cap"]


def test_a_folder_with_a_photo_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "cap").mkdir()
    for name in ("part-0.csv", "cap/1.jpg"):
        (tmp_path / name).write_text("image_uri\n")
    assert len(list_archive(f"file://{tmp_path}")) == 2


@pytest.mark.parametrize(
    "sizes",
    [
        pa.array([123.0, None], pa.float64()),
        pa.array([123.0, float("nan")], pa.float64()),
        pa.array(["123", ""]),
        pa.array(["123.0", None], pa.large_string()),
        pa.array([" 123 ", "nan"]).dictionary_encode(),
        pa.array([123, None], pa.int32()),
    ],
    ids=str,
)
def test_a_size_may_be_text_or_have_a_point(sizes: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": [PHOTO, "s3://b/cap/2.jpg"], "image_bytes": sizes}), tmp_path / "l.parquet")
    assert list_archive(f"file://{tmp_path}/l.parquet")["image_bytes"].to_pylist() == [123, None]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")), datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)),
        (pa.array([1_700_000_000], pa.timestamp("s", "Europe/Berlin")), datetime(2023, 11, 14, 22, 13, 20, 0, UTC)),
        (pa.array([date(2026, 3, 2)]), datetime(2026, 3, 2, tzinfo=UTC)),
        (pa.array(["2026-03-02T10:00:00.123456789Z"], pa.large_string()), datetime(2026, 3, 2, 10, 0, 0, 123456, UTC)),
    ],
    ids=["ns", "time zone", "date", "text"],
)
def test_a_time_may_be_of_any_unit(times: pa.Array, expected: datetime, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": [PHOTO], "captured_at": times}), tmp_path / "l.parquet")
    assert list_archive(f"file://{tmp_path}/l.parquet")["captured_at"].to_pylist() == [expected]


def test_a_time_without_a_unit_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": [PHOTO], "last_modified": [1_700_000_000]}), tmp_path / "l.parquet")
    with pytest.raises(RequestError, match=r"column last_modified of .*expected timestamps or ISO 8601 text"):
        list_archive(f"file://{tmp_path}/l.parquet")


def test_a_size_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"image_uri,image_bytes\n{PHOTO},12.5\n")
    with pytest.raises(RequestError, match=r"column image_bytes of .*12\.5"):
        list_archive(f"file://{tmp_path}/l.csv")
