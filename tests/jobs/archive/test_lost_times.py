"""What is given as a time and is none leaves the photo without, and a line says so."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.archive import manifest


def _list(archive: str, **asked: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = manifest.list_archive(f"file://{archive}", **asked).to_pylist()
    return rows


def test_times_of_a_list_that_are_none_are_counted_and_the_first_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(
        "image_uri,captured_at,last_modified\n"
        "/p/1.jpg,31.12.2026 12:00,1764000000\n/p/2.jpg,2026-11-30,\n/p/3.jpg,\x1b[2Jsoon,nan\n"
    )
    rows = _list(f"{tmp_path}/list.csv")
    assert [row["captured_at"] is None for row in rows] == [True, False, True]
    captured, modified = capsys.readouterr().err.splitlines()
    assert captured.startswith(f"captured_at of 2 rows of file://{tmp_path}/list.csv is no time in ISO 8601")
    assert captured.endswith("the first is 31.12.2026 12:00")
    assert modified.startswith("last_modified of 1 rows")


def test_times_of_a_table_beyond_the_years_of_python_are_told_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = pa.array([0, 10**15, None], pa.timestamp("s"))
    photos = [f"/p/{number}.jpg" for number in range(3)]
    pq.write_table(pa.table({"image_uri": photos, "captured_at": times}), tmp_path / "l.parquet")
    assert [row["captured_at"] is None for row in _list(f"{tmp_path}/l.parquet")] == [False, True, True]
    assert "captured_at of 1 rows" in capsys.readouterr().err


def test_keys_whose_time_is_none_are_told_and_good_archives_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pole/2026-03-02/1.jpg", "pole/2026-03-02/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    pattern = "(?P<category>[^/]+)/(?P<captured_at>[^/]+)/"
    _list(str(tmp_path), key_pattern=pattern)
    assert capsys.readouterr().err == ""
    _list(str(tmp_path), key_pattern="(?P<category>[^/]+)/[^/]+/(?P<captured_at>[^/]+)")
    assert "captured_at of 2 rows" in capsys.readouterr().err
