"""Lists as spreadsheets, databases and pandas write them: what is meant is read, what cannot be meant is refused."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.archive.keys import parse_time
from jobs.archive.kinds import stream_archive
from jobs.archive.uri_list import normalize_listed
from jobs.errors import RequestError
from jobs.storage import uris

PHOTO = "s3://b/cap/1.jpg"


def read_rows(path: Path) -> list[dict[str, object]]:
    return [row for batch in stream_archive(uris.normalize(str(path))) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    "text",
    [
        f"image_uri;image_bytes;box\n{PHOTO};5;1,2,3,4\n",
        f"image_uri\timage_bytes\tbox\n{PHOTO}\t5\t1,2,3,4\n",
        f"Image_URI,IMAGE_BYTES,X,Y,Width,Height\n{PHOTO},5,1,2,3,4\n",
        f'image_uri, image_bytes, box\n {PHOTO}, 5, "1,2,3,4"\n'.replace(', "', ',"'),
        f'"image_uri","note","image_bytes","box"\n"{PHOTO}","of\ntwo lines",5,"1,2,3,4"\n',
        f'\ufeff\r\nbox,image_bytes,image_uri\r\n"1,2,3,4",5,{PHOTO}\r\n',
    ],
    ids=["semicolons", "tabs", "capitals", "blanks", "lines in cells", "mark and order"],
)
@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_a_table_is_read_however_it_was_written(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    (row,) = read_rows(tmp_path / name)
    assert (row["image_uri"], row["image_bytes"], row["box"]) == (PHOTO, 5, "1,2,3,4")


def test_line_breaks_in_cells_are_read_wherever_a_block_ends(tmp_path: Path) -> None:
    rows = [f'"s3://b/cap/{number}\n.jpg"' for number in range(50_000)]
    (tmp_path / "list.csv").write_text("\n".join(["image_uri", *rows, ""]))
    assert len(read_rows(tmp_path / "list.csv")) == 50_000


TABLE = f"image_uri\n{PHOTO}\n".encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("list.csv", gzip.compress(TABLE), "it is packed by gzip: name it .gz", id="packed csv"),
        pytest.param("list.txt", gzip.compress(TABLE), "it is packed by gzip: name it .gz", id="packed txt"),
        ("list.csv.gz", TABLE, "it cannot be unpacked"),
        pytest.param("list.csv.gz", gzip.compress(TABLE)[:-12], "it cannot be unpacked", id="cut gz"),
        ("list.csv", b"PK\x03\x04\x9c", "it is a ZIP archive or a spreadsheet"),
        ("list.csv", b"PAR1\x15", "it is a Parquet file: name it .parquet"),
        ("list.csv", TABLE.decode().encode("utf-16"), "it is text in UTF-16: save it as UTF-8"),
        ("list.csv", TABLE.decode().encode("utf-16-le"), "it is text in UTF-16: save it as UTF-8"),
        ("list.csv", "image_uri\ns3://b/ä.jpg\n".encode("latin-1"), "invalid UTF8 data: save it as UTF-8"),
        ("list.txt", "s3://b/ä.jpg\n".encode("latin-1"), "invalid UTF8 data: save it as UTF-8"),
        ("list.csv", b"Image_URI,IMAGE_URI\na,b\n", "no column image_uri: got Image_URI, IMAGE_URI"),
        ("list.csv", b"image_uri,box,box\ns3://b/1,,\n", "it has the column box 2 times"),
        ("list.csv", b"image_uri,image_bytes\ns3://b/1,-5\n", "column image_bytes .* expected sizes in bytes, got -5"),
    ],
)
def test_what_is_no_list_is_refused_with_what_to_do(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=said):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("column", ["image_uri", "category", "image_etag", "captured_at", "image_bytes"])
@pytest.mark.parametrize("value", [[PHOTO], {"a": PHOTO}], ids=["list", "record"])
def test_a_column_of_lists_or_records_is_refused_by_its_name(column: str, value: object, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": [PHOTO]} | {column: [value]}), tmp_path / "list.parquet")
    with pytest.raises(RequestError, match=f"column {column} of "):
        read_rows(tmp_path / "list.parquet")


def test_a_parquet_list_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([PHOTO]), pa.array([PHOTO])], names=["image_uri", "image_uri"])
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(RequestError, match="it has the column image_uri 2 times"):
        read_rows(tmp_path / "list.parquet")


def test_a_time_that_nobody_can_hold_is_none(tmp_path: Path) -> None:
    times = pa.array([0, 10**13, -(10**13)], pa.timestamp("s"))
    pq.write_table(pa.table({"image_uri": [PHOTO] * 3, "captured_at": times}), tmp_path / "list.parquet")
    assert [row["captured_at"] for row in read_rows(tmp_path / "list.parquet")] == [
        datetime(1970, 1, 1, tzinfo=UTC),
        None,
        None,
    ]
    assert parse_time("0001-01-01T00:00:00+14:00") is parse_time("9999-12-31T23:59:59-12:00") is None


@pytest.mark.parametrize(
    ("listed", "uri"),
    [
        ("S3://b/k.jpg", "s3://b/k.jpg"),
        ("S3A://b/k.jpg", "s3://b/k.jpg"),
        ("GS://b/k.jpg", "gs://b/k.jpg"),
        ("FILE:///a.jpg", "file:///a.jpg"),
    ],
)
def test_schemes_are_told_in_any_letters(listed: str, uri: str) -> None:
    assert normalize_listed(listed) == uri
    assert uris.normalize(listed) == uri


def test_a_folder_of_photos_that_is_called_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").mkdir()
    (tmp_path / "list.csv" / "1.jpg").touch()
    with pytest.raises(RequestError, match="expected a list, or a folder of its parts alone"):
        read_rows(tmp_path / "list.csv")
