"""The groups of a training's photos: by name, by themselves, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from jobs.decoding.fingerprints import FINGERPRINT, take_fingerprints
from jobs.errors import JobError
from jobs.training.config import TrainConfig
from jobs.training.groups import describe_group_shortage, describe_groups, group_photos, looks_for_near_duplicates
from tests.support.bursts import take_again
from tests.support.training import draw_photos, request_tiny_training

BY_SITE = {"group_by": "site,date", "key_pattern": r"(?P<site>[^/]+)/(?P<date>[^/]+)/"}


def _config(tmp_path: Path, **more: object) -> TrainConfig:
    return TrainConfig.model_validate(request_tiny_training(tmp_path, tmp_path) | more)


def _fingerprint(tmp_path: Path, keys: list[str], hashes: str) -> pa.Table:
    """FINGERPRINT rows of photos below the folder of flawless ones, their pixels told by a letter each."""
    uris = [f"file://{tmp_path}/data/insulator/train/good/{key}" for key in keys]
    rows = [{"image_id": number, "image_uri": uri} for number, uri in enumerate(uris)]
    return pa.Table.from_pylist(
        [row | {"pixel_hash": letter} for row, letter in zip(rows, hashes, strict=True)], schema=FINGERPRINT
    )


def test_photos_of_one_site_and_day_are_one_group_and_copies_join_groups(tmp_path: Path) -> None:
    keys = ["a/1/x.jpg", "a/1/y.jpg", "a/2/x.jpg", "b/1/x.jpg", "b/2/copy-of-the-first.jpg"]
    config = _config(tmp_path, **BY_SITE)
    assert group_photos(config, _fingerprint(tmp_path, keys, "pqrst")).tolist() == [0, 0, 1, 2, 3]
    assert group_photos(config, _fingerprint(tmp_path, keys, "pqrsp")).tolist() == [0, 0, 1, 2, 0]


def test_boxes_of_one_photo_are_one_group_however_groups_are_made(tmp_path: Path) -> None:
    photos = _fingerprint(tmp_path, ["a/1/x.jpg", "a/1/x.jpg", "b/1/y.jpg"], "pqr")
    for by in ({"group_by": "photo"}, BY_SITE, {}):
        assert group_photos(_config(tmp_path, **by), photos).tolist() == [0, 0, 1]


def test_a_key_that_names_no_group_is_told_and_is_one_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = _fingerprint(tmp_path, ["a/1/x.jpg", "loose.jpg", "a/1/y.jpg", "lost.jpg"], "pqrs")
    assert group_photos(_config(tmp_path, **BY_SITE), photos).tolist() == [0, 1, 0, 2]
    said = capsys.readouterr().out
    assert "warning: 2 of 4 photos of insulator have no group site,date and are groups by themselves" in said
    assert "loose.jpg" in said


def test_a_pattern_that_no_key_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no photo of insulator has a group site,date: .* the first photo is .*x\.jpg"):
        group_photos(_config(tmp_path, **BY_SITE), _fingerprint(tmp_path, ["x.jpg", "y.jpg"], "pq"))


def test_the_column_of_a_list_names_groups(tmp_path: Path) -> None:
    keys = ["x.jpg", "y.jpg", "z.jpg", "w.jpg"]
    folder = f"file://{tmp_path}/data/insulator/train/good"
    rows = "".join(f"{folder}/{key},{group}\n" for key, group in zip(keys, ("b", "a", "b", ""), strict=True))
    (tmp_path / "list.csv").write_text("image_uri,group\n" + rows)
    config = _config(tmp_path, data=None, good=str(tmp_path / "list.csv"), group_by="group")
    assert group_photos(config, _fingerprint(tmp_path, keys, "pqrs")).tolist() == [0, 1, 0, 2]


def test_keys_of_a_list_are_matched_below_the_bucket(tmp_path: Path) -> None:
    pattern = f"{str(tmp_path)[1:]}/data/insulator/train/good/(?P<site>[^/]+)/"
    config = _config(tmp_path, data=None, good=str(tmp_path / "list.csv"), group_by="site", key_pattern=pattern)
    photos = _fingerprint(tmp_path, ["a/x.jpg", "b/x.jpg", "a/y.jpg"], "pqr")
    assert group_photos(config, photos).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"group_by": "site"}, "group_by site is no named group of key_pattern, which has none: give --key-pattern"),
        ({"group_by": "site,day", "key_pattern": "(?P<site>.)"}, "group_by day is no named group .* which has site"),
        ({"group_by": "site", "key_pattern": "(?P<site"}, "expected a regular expression as key_pattern"),
        ({"key_pattern": "(?P<site>.)"}, "key_pattern is there for group_by"),
    ],
)
def test_groups_that_cannot_be_told_are_refused(tmp_path: Path, given: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        _config(tmp_path, **given)


def _decode(photos: np.ndarray) -> pa.Table:
    pixels = pa.array([photo.tobytes() for photo in photos], pa.large_binary())
    names = [f"file:///{number}.jpg" for number in range(len(photos))]
    return pa.table(
        {
            "image_id": pa.array(range(len(photos)), pa.int64()),
            "image_uri": names,
            "error": pa.nulls(len(photos), pa.string()),
            "pixels": pixels,
        }
    )


def test_copies_and_bursts_are_grouped_by_themselves_unless_each_photo_is_asked_for(tmp_path: Path) -> None:
    """12 scenes, the first of them taken again three times, the second there twice under another name."""
    scenes = draw_photos(12).numpy()
    again = take_again(scenes[0], 3, rng=np.random.default_rng(0), shift_px=1)
    decoded = _decode(np.concatenate([scenes, again, scenes[1:2]]))
    photos = take_fingerprints(decoded, with_thumbnails=True)
    expected = [*range(12), 0, 0, 0, 1]
    assert group_photos(_config(tmp_path), photos).tolist() == expected
    assert group_photos(_config(tmp_path, group_by="photo"), photos).tolist() == [*range(15), 1]
    without = take_fingerprints(decoded, with_thumbnails=False)  # a set too large to compare
    assert group_photos(_config(tmp_path), without).tolist() == [*range(15), 1]


def test_photos_that_could_not_be_decoded_have_no_fingerprint() -> None:
    row = pa.table({"image_id": [0], "image_uri": ["file:///a"], "error": ["not_an_image: x"]})
    (found,) = take_fingerprints(
        row.append_column("pixels", pa.nulls(1, pa.large_binary())), with_thumbnails=True
    ).to_pylist()
    assert (found["pixel_hash"], found["thumbnail"]) == (None, None)


@pytest.mark.parametrize(
    ("given", "photos", "expected"), [({}, 10, True), ({}, 50_001, False), ({"group_by": "photo"}, 10, False)]
)
def test_near_duplicates_are_looked_for_where_nobody_named_groups(
    tmp_path: Path, given: dict[str, object], photos: int, expected: bool
) -> None:
    assert looks_for_near_duplicates(_config(tmp_path, **given), photos=photos) == expected


def test_the_summary_counts_groups_and_says_how_they_were_made(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(60), 5)
    parts = {"train": np.arange(240), "validate": np.arange(0), "calibrate": np.arange(240, 300, 5)}
    said = describe_groups(_config(tmp_path), groups, parts)
    assert said == (
        "insulator: 300 photos in 60 groups (equal pixels and near-duplicates together): 48 train, 12 calibrate"
    )
    assert "(by site,date)" in describe_groups(_config(tmp_path, **BY_SITE), groups, parts)
    assert "(equal pixels together)" in describe_groups(_config(tmp_path, group_by="photo"), groups, parts)


def test_too_few_groups_to_calibrate_are_told_with_what_would_do(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(60), 5)
    assert describe_group_shortage(_config(tmp_path), groups, calibrating=12) == (
        "12 groups of insulator that calibrate, with one photo each, cannot support a false-alarm rate of 0.05: 19 are "
        "needed; with fewer no photo is ever flagged: add photos of other scenes, or --calibration-fraction 0.32"
    )
    assert describe_group_shortage(_config(tmp_path), groups, calibrating=19) is None
    assert describe_group_shortage(_config(tmp_path), np.arange(60), calibrating=12) is None  # it was said of photos
