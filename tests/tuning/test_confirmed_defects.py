"""Defects that people confirmed in scored archives judge the trials of a search, and neither train nor test."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.archive.manifest import list_archive
from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.results.commit import commit_slice
from jobs.review.defects import list_confirmed_defects
from jobs.review.verdicts import write_verdicts
from jobs.tables.schema import VERDICTS, Status
from tests.jobs.findings.scores import WHEN, make_scores
from tuning.choice.split import Split, split_data
from tuning.choice.split_report import describe_split
from tuning.config import SearchConfig
from tuning.run import choose_objective
from tuning.trials.photos import decode_search_photos


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A data set without rust in its test, and an archive of that rust and of five photos that are in the data too."""
    shutil.copytree(drawn / "data", tmp_path / "data")
    insulator = tmp_path / "data" / "insulator"
    shutil.move(insulator / "test" / "rust", tmp_path / "archive")
    for name in ("train/good", "test/missing_cap"):
        for path in sorted((insulator / name).glob("*.jpg"))[:2]:
            shutil.copy(path, tmp_path / "archive" / f"{name.replace('/', '-')}-{path.name}")
    return tmp_path


def _judge(folder: Path, words: Mapping[str, str], *, category: str = "insulator") -> str:
    """Scores all photos of the archive, and two of those that train; says ``words`` of names that contain the keys."""
    results = f"file://{folder}/results"
    archive = list_archive(f"file://{folder}/archive", key_pattern="(?P<category>)").to_pylist()
    train = list_archive(f"file://{folder}/data/insulator/train/good", key_pattern="(?P<category>)").to_pylist()[:2]
    rows = [
        {name: row[name] for name in ("image_uri", "image_etag")} | {"category": category} for row in archive + train
    ]
    commit_slice(results, [make_scores(*rows)], run_id="n", slice_number=0, run_date=WHEN.date(), known_since=-1)
    judged = [
        {**row, "box": None, "verdict": word, "at": WHEN + timedelta(hours=hour)}
        for row in rows
        for hour, (part, word) in enumerate(words.items())
        if part in row["image_uri"]
    ]
    write_verdicts(results, pa.Table.from_pylist(judged, schema=VERDICTS))
    return results


def _split(folder: Path, results: str) -> Split:
    return split_data(f"file://{folder}/data", "insulator", validation_share=0.4, verdicts=results)


@pytest.mark.slow
def test_confirmed_defects_are_the_validation_photos_and_no_test_photo_is_one(folder: Path) -> None:
    results = _judge(folder, {"archive": "good", "archive/0": "defect"})
    split = _split(folder, results)
    assert split.validation_counts == {"confirmed": 8}
    assert {uri.rsplit("/", 2)[1] for uri in split.validation["image_uri"].to_pylist()} == {"archive"}
    assert dict(split.test.counts) == {"good": 20, "missing_cap": 8}
    assert len(split.train) == len(split.groups) == 60
    assert "8 validation photos (8 confirmed by verdicts), 8 of them defective" in describe_split(split, "auroc")[0]
    request = {"data": f"{folder}/data", "category": "insulator", "results": "/r", "verdicts": results}
    assert choose_objective(SearchConfig.model_validate(request), split) == "auroc"
    photos = decode_search_photos(split.train, split.validation, 64, 10**8, 0.2, groups=split.groups)
    assert photos.labels.tolist() == [True] * 8
    assert not photos.lost


@pytest.mark.slow
def test_a_defect_that_is_a_test_photo_too_stays_in_the_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = _split(folder, _judge(folder, {"test-missing_cap": "defect", "archive/0": "defect"}))
    names = [uri.rsplit("/", 1)[1] for uri in split.validation["image_uri"].to_pylist()]
    assert len(names) == 8
    assert not [name for name in names if "missing_cap" in name]
    said = capsys.readouterr().out
    assert "8 defects confirmed in" in said
    assert "2 are in test/ and stay there" in said


@pytest.mark.slow
def test_a_confirmed_defect_among_the_training_photos_trains_no_more_and_judges(folder: Path) -> None:
    split = _split(folder, _judge(folder, {"train/good": "defect"}))
    assert len(split.train) == 58
    assert split.validation_counts == {"confirmed": 2}
    judging = set(split.validation["image_uri"].to_pylist())
    assert judging.isdisjoint(split.train["image_uri"].to_pylist())
    assert split.train["image_id"].to_pylist()[0] == 0


@pytest.mark.slow
def test_validation_photos_of_the_data_set_judge_beside_them(folder: Path) -> None:
    shutil.move(folder / "data/insulator/test/missing_cap", folder / "data/insulator/validation/missing_cap")
    split = _split(folder, _judge(folder, {"archive/0": "defect"}))
    assert split.validation_counts == {"missing_cap": 8, "confirmed": 8}
    assert "8 confirmed by verdicts, others of validation/" in describe_split(split, "auroc")[0]


@pytest.mark.parametrize(("words", "category"), [({"archive": "good"}, "insulator"), ({"archive": "defect"}, "pole")])
def test_without_a_confirmed_defect_of_the_category_the_search_says_what_to_do(
    folder: Path, words: dict[str, str], category: str
) -> None:
    results = _judge(folder, words, category=category)
    with pytest.raises(RequestError, match="no scored photo of insulator that was confirmed as a defect: mark some"):
        _split(folder, results)


def test_the_newest_verdict_on_the_bytes_that_were_scored_counts(folder: Path) -> None:
    results = _judge(folder, {"archive/0": "defect", "archive/0001": "good"})
    found = list_confirmed_defects(results, "insulator")["image_uri"].to_pylist()
    assert len(found) == 7
    other = {
        "image_uri": found[0],
        "image_etag": "0" * 32,
        "box": None,
        "verdict": "good",
        "at": WHEN + timedelta(days=1),
    }
    write_verdicts(results, pa.Table.from_pylist([other], schema=VERDICTS))
    assert list_confirmed_defects(results, "insulator")["image_uri"].to_pylist() == found


def test_a_confirmed_defect_that_was_deleted_since_does_not_judge_a_search(folder: Path) -> None:
    results = _judge(folder, {"archive/0": "defect"})
    gone, *kept = list_confirmed_defects(results, "insulator").to_pylist()
    row = {name: gone[name] for name in ("image_uri", "image_etag")} | {"status": Status.DELETED, "score": None}
    later = make_scores(row | {"p_value": None, "scored_at": WHEN + timedelta(days=1)})
    commit_slice(results, [later], run_id="later", slice_number=0, run_date=WHEN.date(), known_since=1)
    assert list_confirmed_defects(results, "insulator")["image_uri"].to_pylist() == [one["image_uri"] for one in kept]


def test_verdicts_are_given_by_a_flag() -> None:
    asked = ["--data", "/d", "--category", "c", "--results", "/r", "--verdicts", "/night"]
    assert parse_config(SearchConfig, asked).verdicts == "file:///night"
