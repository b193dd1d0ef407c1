"""The report command over a table and photos on disk."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image

from jobs import report, storage
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError, StorageError
from jobs.explanation.table import append_maps, locate_file
from jobs.findings.run import conclude_run
from jobs.results.commit import commit_slice
from jobs.results.known import read_rows
from jobs.scoring.config import ScoreConfig
from jobs.storage import uris
from tests.jobs.findings.scores import WHEN, make_scores


@pytest.fixture
def results(tmp_path: Path) -> str:
    """Two nights over photos of 300 x 200 pixels, of which the second night's are shown."""
    folder = uris.normalize(str(tmp_path / "results"))
    photos = []
    for number in range(3):
        file = tmp_path / "archive" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (300, 200), (80 * number, 90, 100)).save(file)
        photos.append({"image_uri": uris.normalize(str(file)), "image_etag": None, "width": 300, "height": 200})
    gone = {"image_uri": uris.normalize(str(tmp_path / "archive" / "gone.png")), "tail_rank": 1e-9}
    nights: dict[str, list[dict[str, object]]] = {
        "first": [{"p_value": (number + 1) / 200, "run_id": "first"} for number in range(199)],
        "second": [gone, *({**photo, "tail_rank": 0.01} for photo in photos)],
    }
    for day, (run_id, rows) in enumerate(nights.items()):
        began = WHEN + timedelta(days=day)
        commit_slice(
            folder,
            [make_scores(*({**row, "run_id": run_id} for row in rows))],
            run_id=run_id,
            slice_number=0,
            run_date=began.date(),
            known_since=-1,
        )
        record = tmp_path / "results" / "runs" / f"{run_id}.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps({"run_id": run_id, "started_at": began.isoformat(), "config": {}}))
    return folder


def _report(results: str, run_id: str, *flags: str) -> int:
    return report.main(["--results", results, "--run-id", run_id, *flags])


def test_a_run_whose_table_is_gone_has_no_page(tmp_path: Path) -> None:
    record = {"run_id": "n", "started_at": WHEN.isoformat(), "config": {}, "counts": {"scored": 3}}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "n.json").write_text(json.dumps(record))
    with pytest.raises(RequestError, match=r"/scores is no table: .* correct --results"):
        _report(str(tmp_path), "n")


@pytest.mark.slow  # starts a process that decodes
def test_the_page_lies_beside_the_results_and_shows_each_photo_in_its_own_shape(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _report(results, "second") == EXIT_DONE
    page = tmp_path / "results" / "reports" / "second.html"
    assert f"page: {page}" in capsys.readouterr().out
    content = page.read_text()
    assert content.count('<img alt="photo') == 3
    assert re.search(r"no picture: [^<]*gone.png", content) or "no picture: missing" in content or "gone" in content
    assert "Compared with earlier nights:" in content


def test_a_run_that_is_not_there_is_refused_with_those_that_are(results: str) -> None:
    with pytest.raises(RequestError, match="no record of run third: expected one of first, second"):
        _report(results, "third")


@pytest.mark.parametrize("record", [{}, {"run_id": "second"}, []])
def test_a_damaged_record_is_said_in_one_line(results: str, tmp_path: Path, record: object) -> None:
    (tmp_path / "results" / "runs" / "second.json").write_text(json.dumps(record))
    with pytest.raises(
        StorageError, match=r"record of run second in .* is damaged, it has no .*started_at: restore it"
    ):
        _report(results, "second")


def test_without_photos_to_show_nothing_is_fetched(
    results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.findings.thumbnails.decode_rows", lambda *_, **__: pytest.fail("fetched"))
    output = tmp_path / "page.html"
    assert _report(results, "first", "--top", "0", "--output", str(output)) == EXIT_DONE
    assert "Compared with the calibration photos" in output.read_text()


def test_the_page_of_a_run_that_was_not_finished_says_so(results: str, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    record = json.loads((folder / "first.json").read_text())
    (folder / "first.json").unlink()
    (folder / "unfinished").mkdir()
    unfinished = record | {"status": "unfinished", "committed_slices": 2, "slices": 5}
    (folder / "unfinished" / "first.json").write_text(json.dumps(unfinished))
    assert _report(results, "first", "--top", "0") == EXIT_DONE
    page = (tmp_path / "results" / "reports" / "first.html").read_text()
    assert "This run is not finished" in page
    assert "2 of 5 slices are in the table" in page


def _conclude(results: str, run_id: str, **asked: bool) -> int:
    request = {"archive": "/a", "detectors": "/d", "results": results, "run_id": run_id}
    return conclude_run(ScoreConfig.model_validate(request | asked))


def test_new_photos_are_an_event_and_an_alarm_where_asked_for(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fog = {"p_value": 0.95, "run_id": "fog"}
    rows = [{**fog, "image_etag": f"fog {number}"} for number in range(200)]  # new bytes, for known ones are dropped
    began = WHEN + timedelta(days=2)
    commit_slice(results, [make_scores(*rows)], run_id="fog", slice_number=0, run_date=began.date(), known_since=-1)
    record = {"run_id": "fog", "started_at": began.isoformat(), "config": {}}
    (tmp_path / "results" / "runs" / "fog.json").write_text(json.dumps(record))
    with caplog.at_level("INFO"):
        assert _conclude(results, "fog") == EXIT_DONE
        assert _conclude(results, "fog", fail_on_drift=True) == EXIT_TOO_MANY_UNREADABLE
    events = [one.fields for one in caplog.records if one.getMessage() == "drifted"]  # type: ignore[attr-defined]
    assert [(one["category"], one["kind"], one["run_id"]) for one in events] == [("insulator", "new_photos", "fog")] * 2
    assert "alarm: insulator: looks like new photos" in capsys.readouterr().err


def test_a_night_like_before_is_no_alarm(results: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.findings.pictures.make_thumbnails", lambda rows, **_: [("", "none")] * len(rows))
    assert _conclude(results, "first", fail_on_drift=True, report=True) == EXIT_DONE
    assert (tmp_path / "results" / "reports" / "first.html").exists()


@pytest.mark.slow  # starts a process that decodes
def test_an_explained_photo_is_shown_by_its_overlay_and_by_a_thumbnail_once_that_is_gone(
    results: str, tmp_path: Path
) -> None:
    known = read_rows(results, ["image_uri", "image_etag", "box"], run_id="second").to_pylist()
    row = next(one for one in known if one["image_uri"].endswith("/1.png"))
    append_maps(results, [{**row, "run_id": "second"}])
    overlay = locate_file(results, "second", row, ending="jpg")
    storage.write(overlay, b"an overlay")
    embedded = base64.b64encode(b"an overlay").decode()
    page = tmp_path / "results" / "reports" / "second.html"
    assert _report(results, "second") == EXIT_DONE
    assert page.read_text().count(f'src="data:image/jpeg;base64,{embedded}"') == 1
    assert page.read_text().count('<img alt="photo') == 3
    storage.delete(overlay)
    assert _report(results, "second") == EXIT_DONE
    assert embedded not in page.read_text()
    assert page.read_text().count('<img alt="photo') == 3
