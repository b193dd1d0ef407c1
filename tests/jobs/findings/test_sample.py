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
