"""A local disk that is full, wherever a command writes: one line that says which, exit code 1, nothing left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from jobs.cli import run_command
from jobs.detectors.node_cache import hold_detector
from jobs.errors import JobError
from jobs.tables.scratch import Scratch
from model.artifact.files import ARTIFACT_FILES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_database_for_sorting_that_finds_no_room_leaves_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise duckdb.IOException('Could not write file "scratch.duckdb": No space left on device')

    monkeypatch.setattr(duckdb, "connect", refuse)
    with pytest.raises(JobError, match=r"sorting on local disk failed: .*No space left.*set TMPDIR to a larger disk"):
        Scratch()
    assert list(folder.iterdir()) == []


def test_a_detector_that_finds_no_room_is_named_and_not_half_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = folder / "registry" / "pole" / "0123456789abcdef"
    registered.mkdir(parents=True)
    for name in ARTIFACT_FILES:
        (registered / name).write_bytes(b"{}")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    said = rf"no room is left in {folder} for the detector file://{registered}: .*ATTENTDIFFERNET_CACHE_BYTES"
    with (
        pytest.raises(JobError, match=said),
        hold_detector(f"file://{folder}/registry", "pole", detector_id=registered.name),
    ):
        pass
    assert [path.name for path in folder.glob("attentdiffernet-*/pole/*")] == [f"{registered.name}.lock"]


@pytest.mark.parametrize(
    ("file", "said"), [("/a/table.parquet", "/a/table.parquet"), (None, "a local disk, such as that of ")]
)
def test_any_command_says_which_disk_is_full(file: str | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Sequence[str]) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), file)

    with pytest.raises(SystemExit, match=r"^1$"):
        run_command(fail)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no room is left on {said}")
