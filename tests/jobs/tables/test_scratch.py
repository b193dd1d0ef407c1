"""The database on local disk: private, gone afterwards, honest about what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.errors import JobError, StorageError
from jobs.tables import scratch as scratch_module
from jobs.tables.scratch import Scratch

NUMBERS = pa.schema([("n", pa.int64()), ("text", pa.string())])


def _numbers(count: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, count, 10_000):
        some = range(start, min(count, start + 10_000))
        yield pa.record_batch({"n": list(some), "text": [f"{n * 7919 % count:0200d}" for n in some]}, schema=NUMBERS)


def _failing() -> Iterator[pa.RecordBatch]:
    yield from _numbers(10)
    raise StorageError("the listing was cut off")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_it_sorts_more_than_its_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_module, "MEMORY_LIMIT", "100MB")
    with Scratch() as scratch:
        scratch.insert("numbers", _numbers(1_000_000), schema=NUMBERS)
        batches = list(scratch.stream("SELECT * FROM numbers ORDER BY text", schema=NUMBERS))
    assert pa.Table.from_batches(batches)["text"].to_pylist() == [f"{n:0200d}" for n in range(1_000_000)]


def test_only_this_user_can_read_it_and_it_is_gone_afterwards(folder: Path) -> None:
    with Scratch() as scratch:
        scratch.insert("numbers", _numbers(10), schema=NUMBERS)
        assert scratch.folder.parent == folder
        assert scratch.folder.stat().st_mode & 0o077 == 0
    assert list(folder.iterdir()) == []


def test_it_is_gone_after_a_failure_which_comes_through_as_it_was(folder: Path) -> None:
    with pytest.raises(StorageError, match="the listing was cut off"), Scratch() as scratch:
        scratch.insert("numbers", _failing(), schema=NUMBERS)
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = folder / "attentdiffernet-scratch-killed"
    left.mkdir()
    (left / "lock").touch()
    with Scratch() as used:
        assert left.exists()  # so new that its process may just be about to lock it
        monkeypatch.setattr(scratch_module, "MIN_ABANDONED_AGE_S", -1.0)
        with Scratch():
            assert not left.exists()
            assert used.folder.exists()


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line(folder: Path) -> None:
    with Scratch() as scratch:
        scratch.execute("SET max_temp_directory_size = '1MB'")
        scratch.execute("SET memory_limit = '100MB'")
        scratch.insert("numbers", _numbers(1_000_000), schema=NUMBERS)
        with pytest.raises(JobError, match=r"sorting on local disk failed.*set TMPDIR to a larger disk") as caught:
            list(scratch.stream("SELECT * FROM numbers ORDER BY text", schema=NUMBERS))
    assert "\n" not in str(caught.value)
