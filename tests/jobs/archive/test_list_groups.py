"""The column group of a list: read from every kind of list, empty ones left out."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from jobs.archive.list_groups import read_groups
from jobs.errors import RequestError

ROWS = pa.table({"image_uri": ["/a/1.jpg", "s3://b/2.jpg", "s3://b/3.jpg"], "group": ["1", "1", None], "n": [1, 2, 3]})
EXPECTED = {"file:///a/1.jpg": "1", "s3://b/2.jpg": "1"}


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_groups_are_read_by_the_uris_that_a_listing_has(tmp_path: Path, name: str) -> None:
    write = pyarrow.csv.write_csv if name.endswith("csv") else pyarrow.parquet.write_table
    write(ROWS, tmp_path / name)
    assert read_groups(f"file://{tmp_path}/{name}") == EXPECTED


def test_numbers_are_groups_too_and_the_older_name_of_the_uri_is_read(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"uri": ["s3://b/1.jpg"], "group": [7]}), tmp_path / "list.parquet")
    assert read_groups(f"file://{tmp_path}/list.parquet") == {"s3://b/1.jpg": "7"}


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_a_list_without_the_column_says_what_it_has(tmp_path: Path, name: str) -> None:
    write = pyarrow.csv.write_csv if name.endswith("csv") else pyarrow.parquet.write_table
    write(ROWS.drop_columns(["group"]), tmp_path / name)
    with pytest.raises(RequestError, match=r"needs the columns image_uri and group of the list .*: got image_uri, n"):
        read_groups(f"file://{tmp_path}/{name}")
