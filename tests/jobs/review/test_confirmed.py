"""Only photos that were drawn at random and found good calibrate, and only where they look like those of before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.detectors.config import RecalibrateConfig
from jobs.errors import RequestError
from jobs.review.confirmed import list_confirmed_photos
from jobs.review.matching import VerdictIndex
from jobs.review.samples import locate_sample, write_sample
from jobs.review.verdicts import read_latest_verdicts, write_verdicts
from jobs.scoring.recalibration.calibration import choose_scores
from jobs.storage import uris
from jobs.tables.schema import SAMPLES, VERDICTS
from jobs.training.planning import leave_out_defects
from model.statistics.calibration import Calibration
from tests.jobs.findings.scores import WHEN, complete_row


@pytest.fixture
def results(tmp_path: Path) -> str:
    """Photos 0 to 9 are judged, 4 to 9 were drawn of the run, 2 and 3 of their site."""
    folder = uris.normalize(str(tmp_path / "results"))
    words = ["good", "good", "good", "good", "good", "good", "defect", "unsure", "good", "good"]
    judged = [{**complete_row(number, {}), "verdict": word, "at": WHEN} for number, word in enumerate(words)]
    write_verdicts(folder, pa.Table.from_pylist(judged, schema=VERDICTS))
    _draw(folder, "run", *range(4, 11))
    _draw(folder, "site", 2, 3)
    return folder


def _draw(results: str, per: str, *numbers: int) -> None:
    rows = [{**complete_row(number, {}), "per": per, "stratum": ""} for number in numbers]
    write_sample(
        locate_sample(results, "night", per=per, seed=0, ending="parquet"),
        pa.Table.from_pylist(rows, schema=SAMPLES),
    )


def test_photos_that_were_drawn_and_found_good_calibrate_and_the_others_are_named(
    results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list_confirmed_photos(results, "insulator")
    assert found["image_key" if "image_key" in found.column_names else "image_uri"].to_pylist() == [
        complete_row(number, {})["image_uri"] for number in (4, 5, 8, 9)
    ]
    said = capsys.readouterr().out
    assert "4 photos were drawn at random and found good" in said
    assert "left out 2 good photos that no sample drew" in said
    assert "left out 1 unsure photos: were they flawless, false alarms could be up to 20.0% more" in said
    assert "1 drawn photos have no verdict" in said


def test_without_a_drawn_photo_it_says_that_chosen_ones_must_not_calibrate(results: str) -> None:
    with pytest.raises(RequestError, match="no photo of pole that was drawn at random and found good"):
        list_confirmed_photos(results, "pole")


def _request(**more: Any) -> RecalibrateConfig:
    return RecalibrateConfig.model_validate({"verdicts": "/r", "category": "c", "detectors": "/d", **more})


def test_photos_like_those_of_before_join_them_once() -> None:
    rng = np.random.default_rng(0)
    before, scores = Calibration(scores=tuple(rng.normal(size=60))), rng.normal(size=40)
    joined = choose_scores(scores, _request(), before=before)
    assert sorted(joined) == sorted([*before.scores, *scores])
    assert sorted(choose_scores(scores, _request(), before=Calibration(scores=joined))) == sorted(joined)


def test_photos_unlike_those_of_before_are_refused_or_replace_them() -> None:
    rng = np.random.default_rng(0)
    before, scores = Calibration(scores=tuple(rng.normal(size=60))), rng.normal(size=40) + 2
    with pytest.raises(RequestError, match=r"score differently from the 60 calibration photos .*give --replace"):
        choose_scores(scores, _request(), before=before)
    assert choose_scores(scores, _request(replace=True), before=before) == tuple(scores)


@pytest.mark.parametrize(
    ("more", "said"),
    [({"good": "/g"}, "give one of them"), ({"precision": "bf16"}, "needs --replace"), ({"folder": "a"}, "none")],
)
def test_requests_that_contradict_themselves_are_refused(more: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _request(**more)


def test_confirmed_defects_leave_the_training_photos(results: str, capsys: pytest.CaptureFixture[str]) -> None:
    uris_of_photos = [complete_row(number, {})["image_uri"] for number in range(8)]
    manifest = pa.table(
        {
            "image_id": range(8),
            "image_uri": uris_of_photos,
            "image_etag": [complete_row(number, {})["image_etag"] for number in range(8)],
            "box": pa.nulls(8, pa.string()),
        }
    )
    kept = leave_out_defects(manifest, VerdictIndex(read_latest_verdicts(results)), place=results, category="insulator")
    assert kept["image_uri"].to_pylist() == [uri for number, uri in enumerate(uris_of_photos) if number != 6]
    assert kept["image_id"].to_pylist() == list(range(7))
    assert "left out 1 of 8 photos of insulator, confirmed as defects" in capsys.readouterr().out
