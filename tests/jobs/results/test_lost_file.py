"""An old file of the table that is lost ends no run: its photos count as never seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.results import known
from jobs.results.known import read_rows, stream_known
from jobs.scoring.config import ScoreConfig
from jobs.scoring.publication.deletions import mark_deleted
from jobs.tables.schema import LISTED
from jobs.tables.scratch import Scratch
from tests.jobs.results.score_rows import commit_rows, score_row


def test_deletions_are_marked_beside_a_lost_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, archive = f"file://{tmp_path}/results", f"file://{tmp_path}/archive"
    for number in range(2):
        commit_rows(results, [score_row(f"{archive}/cap/{number}.jpg")], slice_number=number, known_since=number)
    next((tmp_path / "results").glob("scores/night-1-00000-*")).unlink()
    config = ScoreConfig.model_validate(
        {"archive": archive, "detectors": str(tmp_path), "results": results, "run_id": "night-2", "mark_deleted": True}
    )
    version, _ = stream_known(results, ["image_uri"])
    with Scratch() as scratch:
        scratch.insert("listed", [], schema=LISTED)
        assert mark_deleted(scratch, config, version=version, listed_at=datetime(2026, 4, 1, tzinfo=UTC)) == 1
    assert "files of" in capsys.readouterr().err
    found = read_rows(results, ["image_uri", "status"], run_id="night-2").to_pylist()
    assert found == [{"image_uri": f"{archive}/cap/1.jpg", "status": "deleted"}]


def test_names_alone_are_read_of_a_table_whose_photos_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, archive = f"file://{tmp_path}/results", f"file://{tmp_path}/archive"
    for number in range(2):
        commit_rows(results, [score_row(f"{archive}/cap/{number}.jpg")], slice_number=number, known_since=number)
    config = ScoreConfig.model_validate(
        {"archive": archive, "detectors": str(tmp_path), "results": results, "run_id": "night-2", "mark_deleted": True}
    )
    version, _ = stream_known(results, ["image_uri"])
    read: list[list[str]] = []
    scan = known.scan_files

    def watch(files: Sequence[known.ActiveFile], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        read.append(list(columns))
        return scan(files, columns)

    monkeypatch.setattr(known, "scan_files", watch)
    monkeypatch.setattr(known, "open_table", lambda _: pytest.fail("the log was read anew"))
    there = [{"image_uri": f"{archive}/cap/{number}.jpg"} for number in range(2)]
    with Scratch() as scratch:
        scratch.insert("listed", [make_listed(there)], schema=LISTED)
        assert mark_deleted(scratch, config, version=version, listed_at=datetime(2026, 4, 1, tzinfo=UTC)) == 0
    assert read == [["image_uri"]]


def make_listed(rows: list[dict[str, str]]) -> pa.RecordBatch:
    """LISTED rows of which only some columns are known."""
    return pa.RecordBatch.from_pylist([dict.fromkeys(LISTED.names) | row for row in rows], schema=LISTED)
