"""A place is the peak of a map, the region around it, and the share of the deviation that lies there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.localization.places import find_place, find_places


def _draw_spot(rows: slice, columns: slice) -> np.ndarray:
    values = np.zeros((10, 20), np.float32)
    values[rows, columns] = 2.0
    values[rows.start, columns.start] = 3.0
    return values


def test_the_box_is_the_region_around_the_peak() -> None:
    place = find_place(_draw_spot(slice(2, 5), slice(4, 10)))
    assert (place.x, place.y) == ((4 + 0.5) / 20, (2 + 0.5) / 10)
    assert place.box == pytest.approx((4 / 20, 2 / 10, 6 / 20, 3 / 10))
    assert place.share == 1


def test_another_spot_belongs_not_to_the_box_and_lowers_the_share() -> None:
    values = np.maximum(
        _draw_spot(slice(2, 5), slice(4, 10)), np.roll(_draw_spot(slice(2, 5), slice(4, 10)), 10, 1) - 1
    )
    place = find_place(values)
    assert place.box == pytest.approx((4 / 20, 2 / 10, 6 / 20, 3 / 10))
    assert 0.5 < place.share < 0.8


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (5, 7), elements=st.floats(-1e6, 1e6, width=32)))
def test_a_place_lies_within_the_photo_and_its_peak_within_its_box(values: np.ndarray) -> None:
    place = find_place(values)
    left, top, width, height = place.box
    assert 0 <= left < place.x < left + width <= 1 + 1e-9
    assert 0 <= top < place.y < top + height <= 1 + 1e-9
    assert 0 < place.share <= 1


def test_a_map_that_is_not_finite_has_no_place() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1, 0, 0] = np.nan
    assert [place is None for place in find_places(maps)] == [False, True]
