"""The loop of a fleet on real photos and the real S3 server: score, look, and learn from what people said."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import evaluate, recalibrate, report, sample, score, storage, train, verdicts
from jobs.detectors import registry
from jobs.detectors.aliases import set_alias
from jobs.errors import EXIT_DONE
from jobs.results.known import read_rows
from tests.support.search import SMALL_SPACE, UNGUARDED
from tuning import run as sweep
from tuning.config import SearchConfig

WEIGHTS = "weights/resnet18_torchvision_to_layer3.safetensors"
CATEGORY, FIRST, CHAMPION = "tile", "first", "champion"
MISTAKEN = 16
"""Defects that lie among the 80 flawless photos that train, and in the archive of the first night too."""
RATE = "0.1"


@dataclass(frozen=True)
class _Fleet:
    """Where everything lies, and which photos of both nights are defective, which only the inspector knows."""

    place: str
    defects: frozenset[str]

    def argv(self, *names: str) -> list[str]:
        return [word for name in names for word in (f"--{name}", f"{self.place}/{name}")]


@pytest.fixture
def fleet(bucket: str, shared: Path) -> _Fleet:
    """Magnetic tiles in a bucket: training photos of which some are defective, and two nights of other photos."""
    tiles = shared / "data" / "mtd" / CATEGORY
    good = sorted((tiles / "test" / "good").iterdir())
    bad = sorted(
        (path for kind in (tiles / "test").iterdir() if kind.name != "good" for path in kind.iterdir()),
        key=lambda path: path.name,
    )
    mistaken, first, second = bad[:MISTAKEN], bad[MISTAKEN:46], bad[46:86]
    _upload(sorted((tiles / "train" / "good").iterdir())[: 80 - MISTAKEN], f"{bucket}/data/{CATEGORY}/train/good")
    _upload(mistaken, f"{bucket}/data/{CATEGORY}/train/good")
    _upload(good[100:110], f"{bucket}/data/{CATEGORY}/test/good")
    _upload(bad[100:110], f"{bucket}/data/{CATEGORY}/test/defect")
    _upload(good[:46], f"{bucket}/night-1/{CATEGORY}")
    defects = _upload([*mistaken, *first], f"{bucket}/night-1/{CATEGORY}")
    _upload(good[46:86], f"{bucket}/night-2/{CATEGORY}")
    return _Fleet(bucket, frozenset(defects + _upload(second, f"{bucket}/night-2/{CATEGORY}")))


def _upload(photos: Sequence[Path], folder: str) -> list[str]:
    uris = [f"{folder}/{path.name}" for path in photos]
    for path, uri in zip(photos, uris, strict=True):
        storage.write(uri, path.read_bytes())
    return uris


def _score(fleet: _Fleet, night: str, *, results: str, alias: str) -> str:
    """Scores a night; returns the URI of the results."""
    place = f"{fleet.place}/{results}"
    flags = ["--archive", f"{fleet.place}/{night}", "--results", place, "--run-id", night, "--alias", alias]
    assert score.main([*fleet.argv("detectors"), *flags, "--false-alarm-rate", RATE, "--report"]) == EXIT_DONE
    return place


def _measure_precision(results: str, fleet: _Fleet, *, top: int) -> float:
    """The share of defects among the most anomalous photos of the results, by what only the inspector knows."""
    rows = read_rows(results, ["image_uri", "tail_rank"]).to_pylist()
    ranked = sorted(rows, key=lambda row: row["tail_rank"])[:top]
    return sum(row["image_uri"] in fleet.defects for row in ranked) / top


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_what_people_said_of_a_night_makes_the_next_one_no_worse(
    cluster: str, fleet: _Fleet, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = ["--category", CATEGORY, *fleet.argv("data", "detectors")]
    training += ["--detector.weights", str(shared / WEIGHTS), "--calibration-fraction", "0.3", "--threads", "1"]
    assert train.main(training) == EXIT_DONE
    before = _find_champion(fleet)
    set_alias(f"{fleet.place}/detectors", CATEGORY, alias=FIRST, detector_id=before, reason="before anybody looked")
    results = _score(fleet, "night-1", results="results", alias=CHAMPION)
    assert report.main(["--results", results, "--run-id", "night-1"]) == EXIT_DONE

    # The inspector looks at the most anomalous photos of the page, and at all of a random sample.
    assert sample.main(["--results", results, "--run-id", "night-1", "--n", "60"]) == EXIT_DONE
    page = storage.read(f"{results}/reports/night-1.html").decode()
    listed = storage.read(f"{results}/samples/night-1.run.60.0.csv").decode()
    looked_at = set(re.findall(r'data-uri="([^"]*)"', page)) | {
        row["image_uri"] for row in csv.DictReader(io.StringIO(listed))
    }
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "image_uri,verdict\n"
        + "".join(f"{uri},{'defect' if uri in fleet.defects else 'good'}\n" for uri in sorted(looked_at))
    )
    assert verdicts.main(["add", str(marks), "--results", results]) == EXIT_DONE
    assert evaluate.main(["--verdicts", results, "--run-id", "night-1"]) == EXIT_DONE
    said = capsys.readouterr().out
    assert f"{len(looked_at)} verdicts added" in said
    assert re.search(r"^top 20 +20 +20 ", said, re.MULTILINE)
    assert re.search(r"^the run +60 +60 ", said, re.MULTILINE)

    learned = ["--verdicts", results, "--category", CATEGORY, *fleet.argv("detectors")]
    assert recalibrate.main([*learned, "--false-alarm-rate", RATE, "--replace", "--promote"]) == EXIT_DONE
    assert "drawn at random and found good" in capsys.readouterr().out
    calibrated = _find_champion(fleet)
    assert train.main([*training, "--verdicts", results]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "confirmed" in said, said
    assert len({before, calibrated, _find_champion(fleet)}) == 3, said
    assert sweep.run(SearchConfig.model_validate(_request_search(fleet, results))) == EXIT_DONE
    assert re.search(r"\d+ validation photos \(\d+ confirmed by verdicts\)", capsys.readouterr().out)

    # A night of photos that nobody has seen, by the detector of before and by the one that has learnt.
    precision = {
        alias: _measure_precision(_score(fleet, "night-2", results=f"results-{alias}", alias=alias), fleet, top=40)
        for alias in (FIRST, CHAMPION)
    }
    print(f"precision of the 40 most anomalous of 80 photos, half of them defective: {precision}")
    assert precision[CHAMPION] >= precision[FIRST] > 0.5


def _find_champion(fleet: _Fleet) -> str:
    found = registry.resolve(f"{fleet.place}/detectors", CATEGORY, alias=CHAMPION)
    assert found is not None
    return str(found.detector_id)


def _request_search(fleet: _Fleet, results: str) -> dict[str, object]:
    """A search of two trials that take a second each."""
    return {
        "data": f"{fleet.place}/data",
        "category": CATEGORY,
        "results": f"{fleet.place}/search",
        "verdicts": results,
        "trials": 2,
        "finalists": 1,
        "finalist_seeds": 1,
        "seeds": 1,
        "presets": [],
        "concurrent": 1,
        "grace_epochs": 1,
        "detector": UNGUARDED,
        "optimizer": {"epochs": 2, "learning_rate": 1e-3},
        "space": {**SMALL_SPACE, "learning_rate": 1e-3},
    }
