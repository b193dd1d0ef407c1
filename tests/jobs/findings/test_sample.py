"""The sample command: who is drawn, what is told of the photos, and what is not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from jobs import sample, verdicts
from jobs.errors import EXIT_DONE, RequestError
from jobs.findings.sample import COLUMNS, draw_strata
from jobs.results.commit import commit_slice
from jobs.review.samples import read_samples
from jobs.storage import uris
from tests.jobs.findings.scores import WHEN, make_scores


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A night of 30 scored photos, of which the first five are reported, and one that could not be read."""
    folder = uris.normalize(str(tmp_path / "results"))
    rows = [{"is_anomaly": number < 5, "site": "north" if number < 3 else "south"} for number in range(30)]
    commit_slice(
        folder,
        [make_scores(*rows, {"status": "unreadable", "p_value": None, "score": None, "is_anomaly": None})],
        run_id="night",
        slice_number=0,
        run_date=WHEN.date(),
        known_since=-1,
    )
    record = tmp_path / "results" / "runs" / "night.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"run_id": "night", "started_at": WHEN.isoformat(), "config": {}}))
    monkeypatch.setattr("jobs.findings.sample.make_thumbnails", lambda rows, **_: [("", "none")] * len(rows))
    return folder


def _sample(results: str, *flags: str) -> int:
    return sample.main(["--results", results, "--run-id", "night", *flags])


def test_list_page_and_record_have_the_same_photos_and_no_scores(results: str, tmp_path: Path) -> None:
    assert _sample(results, "--n", "10") == EXIT_DONE
    folder = tmp_path / "results" / "samples"
    with (folder / "night.run.10.0.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    page, record = (folder / "night.run.10.0.html").read_text(), read_samples(results).to_pylist()
    order = [row["image_uri"] for row in record]
    assert [row["image_uri"] for row in listed] == order == re.findall(r'data-uri="([^"]*)"', page)
    assert list(listed[0]) == ["image_uri", "image_etag", "box", "verdict", "by", "at"]
    assert not re.search(r"tail rank|<b>|<b class|p 0\.", page)
    assert {(row["stratum_photos"], row["stratum_unreported"]) for row in record} == {(30, 25)}
    assert verdicts.main(["add", str(folder / "night.run.10.0.csv"), "--results", results]) == EXIT_DONE


def test_a_smaller_sample_of_the_same_seed_leaves_the_larger_one_as_it_is(results: str, tmp_path: Path) -> None:
    drawn = set()
    for count in ("20", "5"):
        assert _sample(results, "--n", count) == EXIT_DONE
        with (tmp_path / "results" / "samples" / f"night.run.{count}.0.csv").open(newline="") as file:
            drawn |= {row["image_uri"] for row in csv.DictReader(file)}
    assert len(drawn) == 20
    assert set(read_samples(results)["image_uri"].to_pylist()) == drawn


def test_more_photos_than_the_run_has_are_all_of_them(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _sample(results, "--n", "500") == EXIT_DONE
    assert "drew 30 of 30 scored photos" in capsys.readouterr().out


def test_a_sample_of_a_run_that_is_not_finished_says_so(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "runs"
    record = json.loads((folder / "night.json").read_text())
    (folder / "night.json").unlink()
    (folder / "unfinished").mkdir()
    unfinished = record | {"status": "unfinished", "committed_slices": 1, "slices": 3}
    (folder / "unfinished" / "night.json").write_text(json.dumps(unfinished))
    assert _sample(results, "--n", "5") == EXIT_DONE
    said = capsys.readouterr().err
    assert "warning: This run is not finished" in said
    assert "1 of 3 slices are in the table. Only those are drawn from: draw again" in said


def test_each_site_gives_as_many_photos(results: str) -> None:
    assert _sample(results, "--n", "2", "--per", "site") == EXIT_DONE
    rows = read_samples(results).to_pylist()
    assert sorted((row["stratum"], row["stratum_photos"]) for row in rows) == [("north", 3)] * 2 + [("south", 27)] * 2


def test_a_draw_depends_on_the_seed_alone_and_is_fair() -> None:
    rows = [{"site": str(number)} for number in range(20)]
    forward, backward = (make_scores(*some).select(COLUMNS) for some in (rows, rows))
    backward = backward.take(list(range(19, -1, -1)))
    drawn = [draw_strata([batch], count=5, per="run", seed=3)[""].drawn.keys() for batch in (forward, backward)]
    assert list(drawn[0]) == list(drawn[1])
    counts = [0] * 20
    for seed in range(400):
        for row in draw_strata([forward], count=5, per="run", seed=seed)[""].drawn.values():
            counts[int(row["site"])] += 1
    assert min(counts) > 60
    assert max(counts) < 140  # 100 expected, a deviation of 40 is five times the standard one


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--run-id", "other"], "no record of run other: expected one of night"), (["--n", "0"], "n: .*greater than")],
)
def test_a_request_that_cannot_be_met_is_refused(results: str, flags: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        _sample(results, *flags)


def test_a_run_without_scores_has_no_sample(results: str, tmp_path: Path) -> None:
    record = tmp_path / "results" / "runs" / "empty.json"
    record.write_text(json.dumps({"run_id": "empty", "started_at": WHEN.isoformat()}))
    with pytest.raises(RequestError, match=r"run empty .* has no scored photo to draw from"):
        sample.main(["--results", results, "--run-id", "empty"])


def _locate_list(tmp_path: Path) -> Path:
    return tmp_path / "results" / "samples" / "night.run.5.0.csv"


def _fill_in(file: Path) -> None:
    """Writes a verdict, as a spreadsheet saves it: without quotation marks, with a byte order mark."""
    with file.open(newline="", encoding="utf-8-sig") as content:
        rows = list(csv.reader(content))
    rows[1][3] = "defect"
    file.write_text("\ufeff" + "".join(";".join(row) + "\r\n" for row in rows))


def test_a_list_that_somebody_has_filled_in_is_not_written_over(
    results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _sample(results, "--n", "5") == EXIT_DONE
    drawn = _locate_list(tmp_path).read_bytes()
    assert _sample(results, "--n", "5") == EXIT_DONE
    assert _locate_list(tmp_path).read_bytes() == drawn
    assert "has verdicts" not in capsys.readouterr().out
    _fill_in(_locate_list(tmp_path))
    filled_in = _locate_list(tmp_path).read_bytes()
    assert _sample(results, "--n", "5") == EXIT_DONE
    assert "night.run.5.0.csv (it has verdicts and is left as it is)" in capsys.readouterr().out
    assert _locate_list(tmp_path).read_bytes() == filled_in


def test_a_filled_in_list_of_a_run_that_has_more_photos_now_is_not_lost(results: str, tmp_path: Path) -> None:
    assert _sample(results, "--n", "5") == EXIT_DONE
    _fill_in(_locate_list(tmp_path))
    before = {path: path.read_bytes() for path in (tmp_path / "results" / "samples").iterdir()}
    more = [{"image_uri": f"s3://archive/insulator/new-{number}.jpg"} for number in range(300)]
    commit_slice(results, [make_scores(*more)], run_id="night", slice_number=1, run_date=WHEN.date(), known_since=1)
    with pytest.raises(RequestError, match=r"night\.run\.5\.0\.csv has verdicts, and other photos are drawn now: add"):
        _sample(results, "--n", "5")
    assert {path: path.read_bytes() for path in (tmp_path / "results" / "samples").iterdir()} == before
    _locate_list(tmp_path).unlink()
    assert _sample(results, "--n", "5") == EXIT_DONE


def test_a_spreadsheet_shows_a_list_as_it_is_meant(results: str, tmp_path: Path) -> None:
    """No formula comes out of a key where cells are parted at semicolons, and letters beyond ASCII are read."""
    key = "s3://archive/insulator/Mühle;=HYPERLINK(A1;B1).jpg"
    commit_slice(
        results, [make_scores({"image_uri": key})], run_id="night", slice_number=1, run_date=WHEN.date(), known_since=1
    )
    assert _sample(results, "--n", "40") == EXIT_DONE
    content = (tmp_path / "results" / "samples" / "night.run.40.0.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    semicolons = csv.reader(content.decode("utf-8-sig").splitlines(), delimiter=";")
    assert not [cell for row in semicolons for cell in row if cell.startswith(("=", "+", "-", "@"))]
    listed = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
    assert key in {row["image_uri"] for row in listed}


def test_a_list_of_plain_names_has_no_mark_that_simple_readers_stumble_over(results: str, tmp_path: Path) -> None:
    assert _sample(results, "--n", "5") == EXIT_DONE
    assert _locate_list(tmp_path).read_bytes().startswith(b'"image_uri","image_etag"')
