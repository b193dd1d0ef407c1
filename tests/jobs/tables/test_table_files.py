"""Files of the result table: of even size, and one for a small run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.tables import files as table_files
from jobs.tables.files import regroup_batches, write_files

SCHEMA = pa.schema([("n", pa.int64())])


def _batches(*lengths: int) -> list[pa.RecordBatch]:
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return [
        pa.record_batch({"n": list(range(start, start + length))}, schema=SCHEMA)
        for start, length in zip(starts, lengths, strict=True)
    ]


def _group_bytes(rows: int, path: Path) -> int:
    """Size of a file of one row group; more than the group takes up in a larger file."""
    with pa.OSFile(str(path), "wb") as sink, pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        writer.write_batch(_batches(rows)[0])
        return int(sink.tell())


@given(lengths=st.lists(st.integers(0, 30), max_size=10), size=st.integers(1, 40))
def test_regrouping_keeps_every_row_in_order(lengths: list[int], size: int) -> None:
    tables = list(regroup_batches(_batches(*lengths), size_rows=size))
    assert [n for table in tables for n in table["n"].to_pylist()] == list(range(sum(lengths)))
    assert all(len(table) == size for table in tables[:-1])
    assert all(0 < len(table) <= size for table in tables)


@pytest.mark.parametrize(("target_groups", "files"), [(100, 1), (21, 2), (13, 2), (4, 8)])
def test_a_run_is_one_file_or_several_of_even_size(
    target_groups: int, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "ROW_GROUP_ROWS", 500)
    monkeypatch.setattr(table_files, "FILE_BYTES", target_groups * _group_bytes(500, tmp_path / "group"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = write_files(
        _batches(*[1000] * 16), rows=16_000, name=lambda number: f"file://{tmp_path}/t-{number}.parquet", folder=scratch
    )
    paths = [Path(uri.removeprefix("file://")) for uri in found]
    assert [path.name for path in paths] == [f"t-{number}.parquet" for number in range(files)]
    assert [n for path in paths for n in pq.read_table(path)["n"].to_pylist()] == list(range(16_000))
    assert {pq.read_metadata(path).num_rows for path in paths} == {16_000 // files}
    assert pq.read_metadata(paths[0]).row_group(0).num_rows == 500
    assert list(scratch.iterdir()) == []


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    assert write_files([], rows=0, name=str, folder=tmp_path) == []
