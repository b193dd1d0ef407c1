"""Photos that a person leaves out: lists as csv, text and parquet, of URIs or keys."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.archive.exclusion import exclude_photos, read_names
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
