"""Data sets as they are handed out, small and drawn: what is read of them, and what a check says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jobs import dataset
from jobs.datasets.config import CheckDatasetConfig
from jobs.datasets.counts import PUBLISHED, PhotoCounts, count_photos, list_problems
from jobs.datasets.layouts import read_dataset, read_list
from jobs.datasets.photo import LabelledPhoto, split_flawless
from jobs.errors import RequestError

VISA = "object,split,label,image,mask\n" + "".join(
    f"candle,{split},{label},candle/Data/Images/{folder}/{name}.JPG,{mask}\n"
    for split, label, folder, name, mask in [
        ("train", "normal", "Normal", "0", ""),
        ("test", "normal", "Normal", "1", ""),
        ("test", "anomaly", "Anomaly", "0", "candle/Data/Masks/Anomaly/0.png"),
    ]
)


def plant(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return str(root)


def read_counts(layout: str, source: str, **more: object) -> dict[tuple[str, str, str], int]:
    config = CheckDatasetConfig.model_validate({"layout": layout, "source": source, **more})
    return dict(Counter((photo.category, photo.split, photo.label) for photo in read_dataset(config)))


def test_mvtec_ad_is_read_without_its_masks_and_texts(tmp_path: Path) -> None:
    names = ["train/good/000.png", "test/good/000.png", "test/crack/000.png", "ground_truth/crack/000_mask.png"]
    source = plant(tmp_path, *(f"bottle/{name}" for name in names), "bottle/license.txt", "readme.txt")
    assert read_counts("mvtec_ad", source) == {
        ("bottle", "train", "good"): 1,
        ("bottle", "test", "good"): 1,
        ("bottle", "test", "crack"): 1,
    }


def test_visa_is_read_by_its_one_class_split(tmp_path: Path) -> None:
    plant(tmp_path, "candle/Data/Images/Normal/0.JPG", "candle/Data/Masks/Anomaly/0.png")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(VISA)
    assert read_counts("visa", str(tmp_path)) == {
        ("candle", "train", "good"): 1,
        ("candle", "test", "good"): 1,
        ("candle", "test", "anomaly"): 1,
    }


def test_visa_without_its_split_is_refused(tmp_path: Path) -> None:
    plant(tmp_path, "candle/Data/Images/Normal/0.JPG")
    with pytest.raises(RequestError, match=r"needed .*/split_csv/1cls\.csv, which comes with VisA"):
        read_counts("visa", str(tmp_path))


@pytest.mark.parametrize("above", ["", "unsupervised_anomaly_detection/"])
def test_insplad_is_read_from_its_folder_or_the_one_above(tmp_path: Path, above: str) -> None:
    names = ["train/good/a.jpg", "test/good/b.jpg", "test/bird-nest/c.jpg", "test/corrosion/d.jpg"]
    source = plant(tmp_path, *(f"{above}vari-grip/{name}" for name in names))
    assert read_counts("insplad_fault", source) == {
        ("vari-grip", "train", "good"): 1,
        ("vari-grip", "test", "good"): 1,
        ("vari-grip", "test", "bird-nest"): 1,
        ("vari-grip", "test", "corrosion"): 1,
    }


def test_magnetic_tiles_are_split_by_the_list_of_differnets_authors(tmp_path: Path) -> None:
    names = ["MT_Free/Imgs/exp1_a.jpg", "MT_Free/Imgs/exp1_b.jpg", "MT_Crack/Imgs/exp2_a.jpg"]
    source = plant(tmp_path / "mtd", *names, *(name.replace(".jpg", ".png") for name in names))
    (tmp_path / "train.txt").write_text("exp1_b.jpg\n\n")
    assert read_counts("mtd", source, train_list=str(tmp_path / "train.txt")) == {
        ("tile", "train", "good"): 1,
        ("tile", "test", "good"): 1,
        ("tile", "test", "crack"): 1,
    }
    with pytest.raises(RequestError, match="mtd needs --train-list"):
        read_counts("mtd", source)


def test_wafers_are_split_by_their_keys(tmp_path: Path) -> None:
    source = plant(tmp_path, *(f"street/Normal/{n}.png" for n in range(10)), "chip/ok/a.png", "chip/scratch/b.png")
    assert read_counts("wafer", source, test_share=0.3) == {
        ("chip", "test", "good"): 1,
        ("chip", "test", "scratch"): 1,
        ("street", "train", "good"): 7,
        ("street", "test", "good"): 3,
    }


def test_a_list_may_have_paths_and_leave_the_split_open(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "image_uri,label,category,split\na.jpg,good,x,train\ns3://b/c.jpg,dent,x,test\nd.jpg,OK,x,\n"
    )
    photos = read_dataset(CheckDatasetConfig(layout="list", source=str(tmp_path / "list.csv")))
    assert [(photo.uri.removeprefix(f"file://{tmp_path}/"), photo.split, photo.label) for photo in photos] == [
        ("a.jpg", "train", "good"),
        ("d.jpg", "test", "good"),
        ("s3://b/c.jpg", "test", "dent"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_uri\na.jpg\n", "needs the columns image_uri and label: got image_uri"),
        ("image_uri,label\na.jpg,good\n", r"each row needs image_uri, label and category \(or --category\)"),
        ("image_uri,label,category\na.jpg,../../etc,x\n", r"label '\.\./\.\./etc' of .*a\.jpg cannot be the name"),
        ("image_uri,label,category\na.jpg,dent,..\n", r"category '\.\.' of .*a\.jpg cannot be the name"),
        (
            "image_uri,label,category,split\na.jpg,good,x,val\n",
            "split must be one of train, validation, test, got 'val'",
        ),
    ],
)
def test_a_wrong_list_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(RequestError, match=message):
        read_counts("list", str(tmp_path / "list.csv"))


def test_a_folder_in_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="lies as the layout mvtec_ad says: see --help"):
        read_counts("mvtec_ad", plant(tmp_path, "bottle/000.png"))


def test_the_split_of_a_photo_does_not_depend_on_the_others_order() -> None:
    photos = [LabelledPhoto(f"file:///{n}", str(n), "x", "", "good") for n in range(20)]
    one, other = (split_flawless(some, test_share=0.25, seed=3) for some in (photos, photos[::-1]))
    assert one == other
    assert sum(photo.split == "test" for photo in one) == 5
    assert one != split_flawless(photos, test_share=0.25, seed=4)


def test_published_counts_add_up_to_the_published_totals() -> None:
    totals = {name: tuple(map(sum, zip(*counts.values(), strict=True))) for name, counts in PUBLISHED.items()}
    assert totals == {
        "mvtec_ad": (3629, 467, 1258),
        "visa": (8659, 962, 1200),
        "insplad_fault": (9006, 2254, 402),
        "mtd": (761, 191, 392),
    }


def test_each_difference_from_the_published_counts_is_a_line() -> None:
    found = {name: counts for name, counts in PUBLISHED["insplad_fault"].items() if name != "yoke-suspension"}
    found = {**found, "glass-insulator": PhotoCounts(2297, 581, 90), "tower": PhotoCounts(1, 1, 1)}
    assert list(list_problems("insplad_fault", found)) == [
        "glass-insulator: 2297 to train, 581 flawless and 90 defective to test, published with 2298 to train, "
        "581 flawless and 90 defective to test",
        "yoke-suspension: missing, published with 4834 to train, 1207 flawless and 49 defective to test",
        "tower: is none of the published categories",
    ]


def test_names_of_categories_may_be_written_otherwise() -> None:
    found = {name.replace("-", " ").title(): counts for name, counts in PUBLISHED["insplad_fault"].items()}
    assert list(list_problems("insplad_fault", found)) == []


def test_check_prints_counts_and_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = plant(tmp_path, "x/train/good/a.png", "x/test/good/b.png")
    with pytest.raises(
        RequestError, match=r"1 difference\(s\) from what a comparison needs in .*: see the lines above"
    ):
        dataset.main(["check", "--layout", "mvtec_layout", "--source", source])
    assert capsys.readouterr().out.splitlines() == [
        "x: 1 to train, 1 flawless and 0 defective to test",
        "differs: x: no photo in test, defective",
    ]


def test_counts_are_of_flawless_training_photos_and_both_classes_of_test_photos() -> None:
    photos = [
        LabelledPhoto(f"file:///{n}", str(n), "x", split, label)
        for n, (split, label) in enumerate([("train", "good"), ("test", "good"), ("test", "a"), ("test", "b")])
    ]
    assert count_photos(photos) == {"x": PhotoCounts(1, 1, 2)}


def test_a_labelled_list_that_is_not_there_is_a_fault_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"labels\.csv does not exist: correct its name in the request"):
        list(read_list(CheckDatasetConfig(source=f"file://{tmp_path}/labels.csv", layout="list")))
