"""Maps are measured against masks: where they peak, and which pixels they rank first."""

from __future__ import annotations

import numpy as np
import pytest

from model.localization.metrics import TOLERANCE, compare_pointing, measure_distance, measure_maps


def _mask() -> np.ndarray:
    mask = np.zeros((100, 200), bool)
    mask[40:60, 20:60] = True
    return mask


def _map(row: int, column: int) -> np.ndarray:
    values = np.zeros((10, 20), np.float32)
    values[row, column] = 1
    return values


def test_a_map_of_the_mask_itself_is_perfect() -> None:
    found = measure_maps([_mask()[::10, ::10].astype(np.float32)], [_mask()])
    assert (found.pointing, found.near) == (1, 1)
    assert found.auroc > 0.99
    assert found.pro > 0.9


def test_a_map_of_everything_else_finds_nothing() -> None:
    found = measure_maps([1 - _mask()[::10, ::10].astype(np.float32)], [_mask()])
    assert found.pointing == 0
    assert found.auroc < 0.1
    assert found.pro < 0.1


@pytest.mark.parametrize(("row", "column", "expected"), [(4, 2, 0.0), (3, 3, 0.055), (9, 19, 0.676)])
def test_the_distance_is_a_share_of_the_side(row: int, column: int, expected: float) -> None:
    assert measure_distance(_map(row, column), _mask()) == pytest.approx(expected, abs=2e-3)
    assert TOLERANCE > 0.055


def test_a_flat_map_peaks_in_the_middle() -> None:
    mask = np.zeros((100, 100), bool)
    mask[45:55, 45:55] = True
    assert measure_distance(np.zeros((1, 1), np.float32), mask) == 0


def test_two_methods_are_compared_on_the_same_photos() -> None:
    hits, misses, masks = [_map(4, 2)] * 40, [_map(0, 0)] * 40, [_mask()] * 40
    assert compare_pointing(hits, misses, masks) == (1, 1, 1)
    mean, low, high = compare_pointing([*hits[:30], *misses[:10]], [*misses[:30], *hits[:10]], masks)
    assert mean == 0.5
    assert 0.1 < low < 0.5 < high < 0.9
