"""Only photos that were drawn at random and found good calibrate, and only where they look like those of before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.archive.manifest import list_archive
from jobs.detectors.config import RecalibrateConfig
from jobs.errors import RequestError
from jobs.review.confirmed import list_confirmed_photos
from jobs.review.copies import ConfirmedDefects, read_confirmed_defects
from jobs.review.matching import VerdictIndex
from jobs.review.samples import locate_sample, write_sample
from jobs.review.verdicts import read_latest_verdicts, write_verdicts
from jobs.scoring.recalibration.calibration import choose_scores
from jobs.storage import uris
from jobs.tables.schema import SAMPLES, VERDICTS
from jobs.training.planning import leave_out_defects
from model.pictures.rules import DEFAULT_RULES
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
        locate_sample(results, "night", per=per, count=10, seed=0, ending="parquet"),
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
    assert "left out 2 good photos that were drawn --per site" in said
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
    defects = ConfirmedDefects(VerdictIndex(read_latest_verdicts(results)), frozenset(), DEFAULT_RULES)
    kept = leave_out_defects(manifest, defects, place=results, category="insulator")
    assert kept["image_uri"].to_pylist() == [uri for number, uri in enumerate(uris_of_photos) if number != 6]
    assert kept["image_id"].to_pylist() == list(range(7))
    assert "left out 1 of 8 photos of insulator, confirmed as defects" in capsys.readouterr().out


def _save_photos(folder: Path, *numbers: int) -> dict[int, Path]:
    """Saves photos of noise without loss; another size of file for each name, so that only pixels are the same."""
    folder.mkdir(parents=True)
    saved = {}
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        saved[number] = folder / f"{folder.name}-{number}.png"
        Image.fromarray(noise).save(saved[number], compress_level=1 if folder.name == "archive" else 9)
    return saved


def _judge(results: str, words: Mapping[Path, str], *, box: str | None = None) -> None:
    rows = [
        {"image_uri": uris.normalize(str(file)), "box": box, "verdict": word, "at": WHEN}
        for file, word in words.items()
    ]
    write_verdicts(results, pa.Table.from_pylist(rows, schema=VERDICTS))


def _list_kept(results: str, folder: Path) -> list[str]:
    manifest = list_archive(uris.normalize(str(folder)), key_pattern="(?P<category>)")
    defects = read_confirmed_defects(results, rules=DEFAULT_RULES)
    kept = leave_out_defects(manifest, defects, place=results, category="insulator")
    return [uri.rsplit("/", 1)[1] for uri in kept["image_uri"].to_pylist()]


def test_copies_of_confirmed_defects_under_other_names_do_not_train(tmp_path: Path) -> None:
    judged, results = _save_photos(tmp_path / "archive", 1, 2, 3, 4), uris.normalize(str(tmp_path / "results"))
    train = _save_photos(tmp_path / "train", 1, 2, 3, 4, 5)
    _judge(results, {judged[1]: "defect", judged[2]: "good", judged[4]: "defect", train[4]: "good"})
    _judge(results, {judged[3]: "defect"}, box="5,5,20,20")
    assert _list_kept(results, tmp_path / "train") == ["train-2.png", "train-4.png", "train-5.png"]


def test_a_defect_that_is_gone_is_named_and_the_others_still_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged, results = _save_photos(tmp_path / "archive", 1, 2), uris.normalize(str(tmp_path / "results"))
    _save_photos(tmp_path / "train", 1, 2)
    _judge(results, dict.fromkeys(judged.values(), "defect"))
    judged[1].unlink()
    assert _list_kept(results, tmp_path / "train") == ["train-1.png"]
    assert "1 of 2 confirmed defects have changed or cannot be read" in capsys.readouterr().out
