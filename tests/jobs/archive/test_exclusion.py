"""Photos that a person leaves out: lists as csv, text and parquet, of URIs or keys."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from jobs.archive.exclusion import exclude_photos, read_names
from jobs.config import Patterns, is_place
from jobs.errors import RequestError
from jobs.tables.schema import MANIFEST

DATA = "s3://inspection/training"
URIS = [f"{DATA}/cap/train/good/{name}.jpg" for name in ("a", "b, c", "d")]


def _manifest() -> pa.Table:
    return pa.Table.from_pylist([{"image_uri": uri} for uri in URIS], schema=MANIFEST)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", f"{URIS[1]}\n\ncap/train/good/d.jpg\n"),
        ("list.csv", f'times,image_uri\n9,"{URIS[1]}"\n7,cap/train/good/d.jpg\n'),
        ("LIST.CSV", f'\ufeffkey,p_value\r\n"{URIS[1]}",0.1\r\n/cap/train/good/d.jpg,0.2\r\n'),
        ("excel.csv", f'p_value;Image_URI\n0,1;"{URIS[1]}"\n0,2;cap/train/good/d.jpg\n'),
        ("bare.csv", f'"{URIS[1]}"\ncap/train/good/d.jpg\n'),
    ],
)
def test_a_list_of_uris_or_keys_leaves_its_photos_out(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    kept = exclude_photos(_manifest(), read_names(f"file://{tmp_path}/{name}"), data=DATA)
    assert kept["image_uri"].to_pylist() == [URIS[0]]


def test_a_parquet_list_names_photos_by_its_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"note": ["bad"], "uri": [URIS[0]]}), tmp_path / "list.parquet")
    assert read_names(f"file://{tmp_path}/list.parquet") == [URIS[0]]


def test_a_local_path_names_the_photo_of_its_uri() -> None:
    manifest = pa.Table.from_pylist([{"image_uri": "file:///photos/cap/train/good/a.jpg"}], schema=MANIFEST)
    assert not len(exclude_photos(manifest, ["/photos/cap/train/good/a.jpg"], data="file:///photos"))


def test_a_list_that_names_nothing_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    pq.write_table(pa.table({"note": ["bad"]}), tmp_path / "other.parquet")
    for name, said in (("empty.txt", "names no photo"), ("other.parquet", "holds no names"), ("no.csv", "--exclude")):
        with pytest.raises(RequestError, match=said):
            read_names(f"file://{tmp_path}/{name}")


def test_lists_are_read_as_all_lists_are(tmp_path: Path) -> None:
    packed = f"p_value\tImage_URI\r\n0.1\t{URIS[0]}\r\n".encode()
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(packed))
    (tmp_path / "bare.CSV.GZ").write_bytes(gzip.compress(f"{URIS[0]},0.1\n{URIS[2]},0.2\n".encode()))
    pq.write_table(pa.table({"KEY": pa.array([URIS[0], None, URIS[0]]).dictionary_encode()}), tmp_path / "l.parquet")
    assert read_names(f"file://{tmp_path}/list.csv.gz") == [URIS[0]]
    assert read_names(f"file://{tmp_path}/bare.CSV.GZ") == [URIS[0], URIS[2]]
    assert read_names(f"file://{tmp_path}/l.parquet") == [URIS[0], URIS[0]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("list.csv", URIS[0].encode("utf-16"), "text in UTF-16: save it as UTF-8"),
        pytest.param("list.csv", gzip.compress(b"image_uri\n"), "packed by gzip: name it .gz", id="packed"),
        ("list.csv.gz", b"image_uri\n", "it cannot be unpacked"),
        ("list.txt", b"caf\xe9\n", "save it as UTF-8"),
        ("list.parquet", b"junk", "is no Parquet file"),
        ("list.csv", b"image_uri,image_uri\na,b\n", "has the column image_uri 2 times"),
    ],
)
def test_a_list_that_cannot_be_read_says_why_in_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=f"--exclude .*{said}") as caught:
        read_names(f"file://{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("*.txt", False),
        ("rejects/*,notes.txt", False),
        ("out.csv", True),
        ("/data/*", False),
        ("s3://b/out.parquet", True),
    ],
)
def test_what_has_a_star_is_patterns(value: str, *, place: bool) -> None:
    assert is_place(value) is place


@pytest.mark.parametrize(
    "value", ["/lists/out.csv", "~/out.txt", "../out.csv", "s3://b/out.parquet", "*.jpg,/lists/out.csv"]
)
def test_a_list_where_only_patterns_are_taken_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match=r"expected patterns of keys, such as rejects/\*, got .*out"):
        TypeAdapter(Patterns).validate_python(value)
    assert TypeAdapter(Patterns).validate_python("*.txt,notes.csv,a/b") == ["*.txt", "notes.csv", "a/b"]
