"""Which photos judge trials and which are only opened for the winner."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs import storage
from jobs.errors import JobError, RequestError
from tuning.choice.split import Split, read_mark, split_data
from tuning.choice.split_report import describe_split
from tuning.config import SearchConfig
from tuning.run import choose_objective


def _split(data: Path, *, share: float = 0.4) -> Split:
    return split_data(f"file://{data}", "insulator", validation_share=share)


def _names(split: Split, results: Path) -> tuple[set[str], set[str]]:
    test = split.test.open(results=f"file://{results}", winner="w")
    return set(split.validation["image_uri"].to_pylist()), set(test["image_uri"].to_pylist())


def test_validation_is_a_share_of_the_test_photos_and_they_have_none_in_common(drawn: Path, tmp_path: Path) -> None:
    split = _split(drawn / "data")
    validation, test = _names(split, tmp_path)
    assert validation.isdisjoint(test)
    assert len(validation) + len(test) == 36
    assert 8 <= len(validation) <= 21  # 36 draws of probability 0.4
    assert 0 < split.defects < sum(split.validation_counts.values())
    assert set(split.validation["split"].to_pylist()) == {"validation"}
    assert len(split.train) == 60


def test_a_photo_stays_in_its_part_when_others_come_and_when_the_data_moves(drawn: Path, tmp_path: Path) -> None:
    before, _ = _names(_split(drawn / "data"), tmp_path / "a")
    shutil.copytree(drawn / "data", tmp_path / "moved")
    good = tmp_path / "moved" / "insulator" / "test" / "good"
    for path in sorted(good.iterdir())[:5]:
        shutil.copy(path, path.with_name("new-" + path.name))
    after, _ = _names(_split(tmp_path / "moved"), tmp_path / "b")
    assert {uri.rsplit("/", 2)[1:][0] + uri.rsplit("/", 1)[1] for uri in before} <= {
        uri.rsplit("/", 2)[1:][0] + uri.rsplit("/", 1)[1] for uri in after
    }


def test_copies_of_a_test_photo_are_on_its_side(drawn: Path, tmp_path: Path) -> None:
    """Each flawless test photo three times, under names that alone would go to either side."""
    shutil.copytree(drawn / "data", tmp_path / "data")
    good = tmp_path / "data" / "insulator" / "test" / "good"
    for path in sorted(good.iterdir()):
        for other in ("x", "y"):
            shutil.copy(path, path.with_name(f"{path.stem}-{other}.jpg"))
    validation, test = (
        {uri.rsplit("/", 1)[1][:4] for uri in found if "/good/" in uri}
        for found in _names(_split(tmp_path / "data", share=0.5), tmp_path)
    )
    assert validation.isdisjoint(test)
    assert len(validation) + len(test) == 20
    assert min(len(validation), len(test)) > 3


def copy_training_photos(drawn: Path, data: Path) -> None:
    """Makes a data set whose flawless training photos are there twice, the copies below a folder of their own."""
    shutil.copytree(drawn / "data", data)
    good = data / "insulator" / "train" / "good"
    (good / "again").mkdir()
    for path in sorted(good.glob("*.jpg")):
        shutil.copy(path, good / "again" / path.name)


def test_copies_among_the_training_photos_are_one_group(drawn: Path, tmp_path: Path) -> None:
    copy_training_photos(drawn, tmp_path / "data")
    split = _split(tmp_path / "data")
    names = [uri.rsplit("/", 1)[1] for uri in split.train["image_uri"].to_pylist()]
    assert len(names) == 120
    by_group = {
        group: {name for name, one in zip(names, split.groups, strict=True) if one == group} for group in split.groups
    }
    assert {len(found) for found in by_group.values()} == {1}
    assert len(by_group) == 60
    assert "120 flawless training photos in 60 groups" in describe_split(split, "auroc")[0]


def test_named_groups_of_a_search_are_those_of_the_key_pattern(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "data", tmp_path / "data")
    good = tmp_path / "data" / "insulator" / "train" / "good"
    for number, path in enumerate(sorted(good.glob("*.jpg"))):
        (good / f"site{number % 4}").mkdir(exist_ok=True)
        path.rename(good / f"site{number % 4}" / path.name)
    split = split_data(
        f"file://{tmp_path}/data", "insulator", validation_share=0.4, group_by=["site"], key_pattern="(?P<site>[^/]+)/"
    )
    assert len(set(split.groups.tolist())) == 4
    with pytest.raises(ValidationError, match="group_by date is no named group of key_pattern, which has site"):
        SearchConfig.model_validate(
            {"data": "/d", "category": "c", "results": "/r", "group_by": "date", "key_pattern": "(?P<site>x)"}
        )


def test_patterns_choose_the_photos_of_a_search(drawn: Path) -> None:
    data, first = f"file://{drawn}/data", "train/good/000*"
    split = split_data(data, "insulator", validation_share=0.4, exclude="rust/*")
    assert "rust" not in split.validation_counts + split.test.counts
    chosen = split_data(data, "insulator", validation_share=0.4, include=[first, "test/*"])
    assert 8 <= len(chosen.train) < len(split.train)
    assert len(chosen.groups) == len(chosen.train)


def test_a_search_refuses_a_list_of_what_to_take_as_other_commands_do() -> None:
    with pytest.raises(ValidationError, match=r"expected patterns of keys, such as rejects/\*, got '/lists/a.csv'"):
        SearchConfig.model_validate({"data": "/d", "category": "c", "results": "/r", "include": "/lists/a.csv"})


def test_a_folder_of_validation_photos_is_taken_as_it_is(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "data", tmp_path / "data")
    folder = tmp_path / "data" / "insulator"
    shutil.move(folder / "test" / "rust", folder / "validation" / "rust")
    split = _split(tmp_path / "data")
    validation, test = _names(split, tmp_path)
    assert (split.is_share_of_test, split.defects, len(validation), len(test)) == (False, 8, 8, 28)
    assert dict(split.test.counts) == {"good": 20, "missing_cap": 8}


def test_the_test_is_opened_for_one_winner_only(drawn: Path, tmp_path: Path) -> None:
    results, split = f"file://{tmp_path}", _split(drawn / "data")
    assert read_mark(results) is None
    first = split.test.open(results=results, winner="one")
    mark = read_mark(results)
    assert mark is not None
    assert mark["winner"] == "one"
    assert split.test.open(results=results, winner="one").equals(first)
    with pytest.raises(JobError, match=r"opened on .* for winner one: to choose again"):
        split.test.open(results=results, winner="two")
    with pytest.raises(JobError, match="to choose again"):
        _split(drawn / "data", share=0.2).test.open(results=results, winner="one")


def test_no_attribute_of_the_sealed_test_leads_to_its_photos(drawn: Path) -> None:
    public = {name: getattr(_split(drawn / "data").test, name) for name in ("counts", "photos_hash")}
    assert sum(public["counts"].values()) > 0
    assert not [name for name in vars(_split(drawn / "data").test) if not name.startswith("_") and name not in public]


def test_too_few_flawless_photos_are_refused(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "data" / "insulator" / "test", tmp_path / "insulator" / "test")
    with pytest.raises(RequestError, match=r"at least 8 photos in .*/train/good, got 0"):
        _split(tmp_path)


def test_auto_takes_labels_where_there_are_any_and_a_label_free_metric_else(drawn: Path, tmp_path: Path) -> None:
    config = SearchConfig(data=str(drawn / "data"), category="insulator", results=str(tmp_path))
    assert choose_objective(config, _split(drawn / "data")) == "auroc"
    shutil.copytree(drawn / "data" / "insulator" / "train", tmp_path / "insulator" / "train")
    bare = _split(tmp_path)
    assert choose_objective(config, bare) in ("held_out_gain", "shift_agreement")
    with pytest.raises(RequestError, match="objective auroc needs validation photos with defects"):
        choose_objective(config.model_copy(update={"objective": "auroc"}), bare)
    said = "\n".join(describe_split(bare, "held_out_gain"))
    assert "A handful would do: 5 defects: +-" in said
    assert "held_out_gain is a guess" in said


def test_synthetic_defects_are_taken_with_a_warning(drawn: Path) -> None:
    said = describe_split(_split(drawn / "data"), "synthetic_auroc")
    assert any("rank correlation with the real gain was 0.22" in line for line in said)
    assert not any("0.22" in line for line in describe_split(_split(drawn / "data"), "auroc"))


def test_a_damaged_mark_does_not_open_anything(drawn: Path, tmp_path: Path) -> None:
    storage.write(f"file://{tmp_path}/test-opened.json", b"{}")
    with pytest.raises(JobError, match="were opened"):
        _split(drawn / "data").test.open(results=f"file://{tmp_path}", winner="one")
