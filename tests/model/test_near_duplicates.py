"""Near-duplicates: photos of one scene are grouped, different photos of one product are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from jobs.synthetic.photo import draw_photo
from model.near_duplicates import group_near_duplicates
from model.statistics.groups import count_groups
from model.thumbnails import make_thumbnail
from tests.support.bursts import take_again

SCENES = 24


@pytest.fixture(scope="module")
def drawn_photos() -> npt.NDArray[np.uint8]:
    """Different photos of one product, uint8 (24, 3, 128, 128)."""
    photos = [draw_photo(np.random.default_rng(seed), size_px=128, defect="good") for seed in range(SCENES)]
    return np.stack([np.asarray(photo).transpose(2, 0, 1) for photo in photos])


@pytest.fixture(scope="module")
def flawless_parts() -> npt.NDArray[np.uint8]:
    """Flawless parts that look alike: the same shape at the same place, each with a texture of its own."""
    shape = np.zeros((128, 128))
    shape[24:104, 40:90] = 60
    grain = np.random.default_rng(1).normal(0, 6, (SCENES, 128, 128))
    return np.repeat(np.clip(90 + shape + grain, 0, 255).astype(np.uint8)[:, None], 3, axis=1)


def _group(photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return group_near_duplicates(np.stack([make_thumbnail(photo) for photo in photos]))


@pytest.mark.parametrize("kind", ["drawn_photos", "flawless_parts"])
def test_different_photos_of_one_product_are_groups_by_themselves(kind: str, request: pytest.FixtureRequest) -> None:
    assert _group(request.getfixturevalue(kind)).tolist() == list(range(SCENES))


@pytest.mark.parametrize("kind", ["drawn_photos", "flawless_parts"])
def test_photos_of_one_scene_are_one_group(kind: str, request: pytest.FixtureRequest) -> None:
    """Moved by up to 1.3 % of the side, brighter or darker by 4 %, with other noise; next to a scene seen once.

    Small photos with much noise: a scene may come to two groups, but no two scenes to one.
    """
    photos = request.getfixturevalue(kind)
    rng = np.random.default_rng(2)
    burst = np.concatenate([take_again(photo, 5, rng=rng, shift_px=2) for photo in photos[1:]])
    groups = _group(np.concatenate([photos[:1], burst]))
    scenes = [0, *np.repeat(np.arange(1, SCENES), 5)]
    assert len(set(zip(groups.tolist(), scenes, strict=True))) == count_groups(groups) <= 1.4 * SCENES


def test_where_most_photos_are_copies_the_others_stay_alone(drawn_photos: npt.NDArray[np.uint8]) -> None:
    groups = _group(np.concatenate([drawn_photos, drawn_photos[:20]]))
    assert groups.tolist() == [*range(SCENES), *range(20)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_photos_have_nothing_to_be_compared_with(count: int) -> None:
    assert group_near_duplicates(np.zeros((count, 64, 64), np.float16)).tolist() == list(range(count))


def test_photos_without_any_structure_are_no_near_duplicates() -> None:
    grey = np.arange(60, 80, dtype=np.float16)[:, None, None] * np.ones((64, 64), np.float16)
    assert count_groups(group_near_duplicates(grey)) == 20


@pytest.mark.parametrize("side", [64, 100, 448])
def test_a_thumbnail_averages_areas(side: int) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, side).round().astype(np.uint8), (3, side, side))
    found = make_thumbnail(ramp)
    assert (found.shape, found.dtype) == ((64, 64), np.float16)
    np.testing.assert_allclose(found[0], found[63])
    assert float(found.mean(dtype=np.float64)) == pytest.approx(float(ramp.mean()), abs=0.3)
