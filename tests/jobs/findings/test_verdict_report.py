"""What verdicts say of a run: precision, sites, and misses by random samples alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs import evaluate
from jobs.errors import EXIT_DONE, RequestError
from jobs.results.commit import commit_slice
from jobs.review.samples import locate_sample, write_sample
from jobs.review.verdicts import write_verdicts
from jobs.storage import uris
from jobs.tables.schema import SAMPLES, VERDICTS
from tests.jobs.findings.scores import WHEN, complete_row, make_scores

PHOTOS = 60
ALARMS = 20


def _verdict(number: int, verdict: str, **more: Any) -> dict[str, Any]:
    row = complete_row(number, {})
    return {"image_uri": row["image_uri"], "image_etag": row["image_etag"], "verdict": verdict, "at": WHEN, **more}


@pytest.fixture
def results(tmp_path: Path) -> str:
    """A night of 60 photos, of which the 20 of the smallest tail rank are reported, half of each site."""
    folder = uris.normalize(str(tmp_path / "results"))
    rows = [
        {"is_anomaly": number < ALARMS, "tail_rank": (number + 1) / 100, "site": "north" if number % 2 else "south"}
        for number in range(PHOTOS)
    ]
    commit_slice(folder, [make_scores(*rows)], run_id="night", slice_number=0, run_date=WHEN.date(), known_since=-1)
    return folder


def _judge(results: str, *rows: dict[str, Any]) -> None:
    write_verdicts(results, pa.Table.from_pylist(list(rows), schema=VERDICTS))


def _draw(results: str, *numbers: int) -> None:
    rows = [
        {
            **complete_row(number, {"is_anomaly": number < ALARMS}),
            "per": "run",
            "stratum": "",
            "stratum_photos": PHOTOS,
            "stratum_unreported": PHOTOS - ALARMS,
        }
        for number in numbers
    ]
    uri = locate_sample(results, "night", per="run", count=10, seed=0, ending="parquet")
    write_sample(uri, pa.Table.from_pylist(rows, schema=SAMPLES))


def _report(results: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Cells of each printed row by its first one."""
    assert evaluate.main(["--verdicts", results, "--run-id", "night"]) == EXIT_DONE
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if cells}


def test_precision_is_that_of_the_judged_alarms(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    _judge(
        results, *(_verdict(number, "defect" if number < 6 else "good") for number in range(8)), _verdict(8, "unsure")
    )
    found = _report(results, capsys)
    assert found["alarms"] == ["20", "8", "1", "6", "75.0% (34.9% to 96.8%)"]
    assert found["top 10"][:4] == ["10", "8", "1", "6"]
    assert found["south"] == ["30", "4", "1", "25.0% (0.6% to 80.6%)"]


def test_misses_are_counted_among_drawn_photos_alone(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    _judge(results, *(_verdict(number, "defect" if number in (20, 21, 25) else "good") for number in range(10, 40)))
    assert any(line.startswith("Misses: not known") for line in _report(results, capsys))
    _draw(results, 15, 16, *range(24, 34), 55)
    found = _report(results, capsys)
    # Two drawn ones were reported, ten were not and are judged: one of them is a defect; one has no verdict.
    assert found["the run"][:4] == ["13", "12", "10", "1"]
    assert found["the run"][4].startswith("10.0% (0.3% to 44.5%), 4 (0 to 18) of 40")
    assert found["the run"][5].startswith("18.2%")
    assert any(line.startswith("1 drawn photos have no verdict") for line in found)


def test_a_verdict_on_other_bytes_does_not_count(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    _judge(results, _verdict(0, "defect", image_etag="other"))
    assert _report(results, capsys)["alarms"][1] == "0"


def test_without_verdicts_or_run_it_says_what_is_needed(results: str) -> None:
    with pytest.raises(RequestError, match="has no verdicts: mark photos"):
        evaluate.main(["--verdicts", results, "--run-id", "night"])
    _judge(results, _verdict(0, "defect"))
    with pytest.raises(RequestError, match="no scored photo of run other"):
        evaluate.main(["--verdicts", results, "--run-id", "other"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "needed --data FOLDER and --detectors REGISTRY, or --verdicts RESULTS"),
        (["--verdicts", "/r"], "--verdicts RESULTS needs --run-id ID"),
        (["--data", "/d", "--detectors", "/r", "--run-id", "night"], "--run-id goes with --verdicts"),
    ],
)
def test_a_request_that_is_neither_kind_of_evaluation_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        evaluate.main(flags)
