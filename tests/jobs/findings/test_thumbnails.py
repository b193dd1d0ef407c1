"""Pictures on the page show where a photo deviates."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from jobs.findings.thumbnails import encode_jpeg

SIDE = 64
GREY = np.full((3, SIDE, SIDE), 128, np.uint8).tobytes()


def _draw(**row: object) -> np.ndarray:
    data = encode_jpeg(GREY, {"width": 200, "height": 100, **row}, side_px=SIDE)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1]))).convert("RGB")).astype(int)


def test_the_region_is_framed_in_the_proportions_of_the_photo() -> None:
    plain, marked = _draw(), _draw(peak_x=0.25, peak_y=0.5, peak_box="0.125,0.25,0.25,0.5")
    assert plain.shape == marked.shape == (32, 64, 3)
    rows, columns = np.nonzero(np.abs(marked - plain).max(2) > 60)
    assert abs(rows.min() - 8) <= 1
    assert abs(rows.max() - 23) <= 1
    assert abs(columns.min() - 8) <= 1
    assert abs(columns.max() - 23) <= 1


def test_a_photo_without_a_place_stays_as_it_is() -> None:
    assert np.array_equal(_draw(), _draw(peak_x=None, peak_y=None, peak_box=None))
