"""The demo's procedural photos and its archive: reproducible, labelled, and broken where they claim to be."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from jobs.errors import RequestError
from jobs.synthetic.archive import DemoCounts, draw_archive
from jobs.synthetic.photo import Defect, draw_photo
from model.image import ImageError, decode_image

SIZE_PX = 96
BROKEN = 5


def draw(folder: Path, *, seed: int = 0, test_good: int = 4) -> DemoCounts:
    return draw_archive(folder, seed=seed, size_px=SIZE_PX, train_good=3, test_good=test_good, missing_cap=3, rust=2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo archive."""
    folder = tmp_path_factory.mktemp("demo")
    draw(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labels(folder: Path) -> dict[str, str]:
    """The archive's answers: path below ``archive/`` to label."""
    with (folder / "archive_labels.csv").open(newline="") as stream:
        return {row["path"]: row["label"] for row in csv.DictReader(stream)}


def changed(defect: Defect, *, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which pixels of a photo a defect changes, (256, 256) bool."""
    good = np.asarray(draw_photo(np.random.default_rng(seed), size_px=256, defect="good"))
    other = np.asarray(draw_photo(np.random.default_rng(seed), size_px=256, defect=defect))
    return np.asarray((good != other).any(axis=-1))


def test_the_same_seed_gives_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    draw(tmp_path)
    assert contents(tmp_path) == contents(demo)


def test_drawing_again_into_the_same_folder_changes_nothing(tmp_path: Path) -> None:
    draw(tmp_path)
    before = contents(tmp_path)
    draw(tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_with_another_archive_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    draw(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RequestError, match="take another folder"):
        draw(tmp_path, seed=1)
    assert contents(tmp_path) == before


def test_another_seed_gives_other_photos(demo: Path, tmp_path: Path) -> None:
    draw(tmp_path, seed=1)
    photo = "data/insulator/train/good/0000.jpg"
    assert (tmp_path / photo).read_bytes() != (demo / photo).read_bytes()


def test_no_two_photos_are_the_same(demo: Path) -> None:
    photos = [path.read_bytes() for path in (demo / "data").rglob("*.jpg")]
    assert len(set(photos)) == len(photos) == 12


def test_more_test_photos_leave_the_others_as_they_were(demo: Path, tmp_path: Path) -> None:
    draw(tmp_path, test_good=6)
    before, after = contents(demo / "data"), contents(tmp_path / "data")
    assert len(after) == len(before) + 2
    assert {path: after[path] for path in before} == before


def test_folders_follow_the_mvtec_layout_with_the_returned_counts(tmp_path: Path) -> None:
    counts = draw(tmp_path)
    found = Counter(str(path.parent.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.jpg"))
    assert found == {
        "insulator/train/good": counts.train_good,
        "insulator/test/good": counts.test_good,
        "insulator/test/missing_cap": counts.missing_cap,
        "insulator/test/rust": counts.rust,
    }


def test_the_archive_holds_exactly_the_labelled_files(demo: Path) -> None:
    assert set(contents(demo / "archive")) == set(labels(demo))
    assert Counter(labels(demo).values()) == {"good": 4, "missing_cap": 3, "rust": 2, "broken": BROKEN}


def test_each_label_is_that_of_the_test_photo_with_the_same_bytes(demo: Path) -> None:
    kinds = {path.read_bytes(): path.parent.name for path in (demo / "data" / "insulator" / "test").rglob("*.jpg")}
    archive = contents(demo / "archive")
    assert all(kinds.get(archive[path], "broken") == label for path, label in labels(demo).items())


def test_paths_give_category_site_and_date_and_not_the_label(demo: Path) -> None:
    for path in labels(demo):
        category, site, date, name = path.split("/")
        assert (category, site[:5], date[:5], name[:4]) == ("insulator", "line-", "2026-", "IMG_")


def test_no_broken_file_can_be_decoded(demo: Path) -> None:
    broken = [demo / "archive" / path for path, label in labels(demo).items() if label == "broken"]
    for path in broken:
        with pytest.raises((OSError, Image.DecompressionBombError)), Image.open(path) as image:
            image.load()


def test_every_other_file_is_a_photo_of_the_asked_size(demo: Path) -> None:
    for path, label in labels(demo).items():
        if label != "broken":
            with Image.open(demo / "archive" / path) as image:
                image.load()
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE_PX, SIZE_PX))


def test_broken_files_are_empty_truncated_html_text_and_a_bomb(demo: Path) -> None:
    codes = []
    for path, label in labels(demo).items():
        if label == "broken":
            with pytest.raises(ImageError, match=r"^(empty|not_an_image|too_many_pixels|truncated): ") as caught:
                decode_image((demo / "archive" / path).read_bytes(), size=64)
            codes.append(caught.value.code)
    assert sorted(codes) == ["empty", "not_an_image", "not_an_image", "too_many_pixels", "truncated"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("defect", "most_caps"), [("missing_cap", 1), ("rust", 3)])
def test_a_defect_changes_a_visible_place_on_the_string_and_nothing_else(
    defect: Literal["missing_cap", "rust"], most_caps: int, seed: int
) -> None:
    rows, columns = np.nonzero(changed(defect, seed=seed))
    # The middle is at 0.445 to 0.475; ends are at most 0.35 * sin(6 degrees) off it, discs reach 0.146 to each side.
    assert rows.min() > 0.2 * 256
    assert rows.max() < 0.7 * 256
    # A pitch is at most 0.1 of the side; a disc, its socket and the blur reach half a pitch further on both sides.
    assert columns.max() - columns.min() < (most_caps + 1) * 0.1 * 256
    assert len(rows) > 0.001 * 256**2  # 65 pixels, of the smallest stain


def test_a_missing_cap_bares_about_one_disc() -> None:
    shares = [changed("missing_cap", seed=seed).mean() for seed in range(4)]
    assert min(shares) > 0.01
    assert max(shares) < 0.05


def test_calls_in_turn_draw_different_photos() -> None:
    rng = np.random.default_rng(0)
    first, second = (draw_photo(rng, size_px=64, defect="good").tobytes() for _ in range(2))
    assert first != second


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(ValueError, match="good, missing_cap, rust, got 'cracked'"):
        draw_photo(np.random.default_rng(0), size_px=64, defect="cracked")  # type: ignore[arg-type]  # the wrong value
