"""Which Parquet files have one of some values in a column."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.tables.parquet import find_files


def test_the_files_that_have_a_value_are_found_in_any_of_their_row_groups(tmp_path: Path) -> None:
    files = []
    for number in range(6):
        names = pa.array([f"{number}-{row}" for row in range(3)])
        pq.write_table(pa.table({"name": names}), tmp_path / f"{number} #.parquet", row_group_size=2)
        files.append(f"file://{tmp_path}/{number} #.parquet")
    pq.write_table(pa.table({"name": pa.array([], pa.string())}), tmp_path / "none.parquet")
    files.append(f"file://{tmp_path}/none.parquet")
    wanted = pa.array(["1-0", "4-2", "9-9"])
    assert find_files(files, column="name", values=wanted) == {files[1], files[4]}
    assert find_files(files, column="name", values=pa.array([], pa.string())) == set()
