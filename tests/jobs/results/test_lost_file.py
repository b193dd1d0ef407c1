"""An old file of the table that is lost ends no run: its photos count as never seen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

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
    next((tmp_path / "results").glob("scores/run_date=*/night-1-00000-*")).unlink()
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
