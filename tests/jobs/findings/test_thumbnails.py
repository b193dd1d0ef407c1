"""Pictures on the page show where a photo deviates."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import ExifTags, Image

from jobs.findings import thumbnails
from jobs.findings.thumbnails import encode_jpeg, make_thumbnails

SIDE = 64
GREY = np.full((3, SIDE, SIDE), 128, np.uint8).tobytes()


def _draw(**row: object) -> np.ndarray:
    data = encode_jpeg({"pixels": GREY, "width": 200, "height": 100}, row, side_px=SIDE)
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


@pytest.mark.parametrize(
    ("orientation", "box", "expected"),
    [
        (1, None, (64, 32)),
        (6, None, (32, 64)),  # EXIF: turned by a quarter
        (6, "0,0,60,120", (64, 32)),  # upright as stored, so it lies once the photo is turned
        (1, "-60,0,120,60", (64, 64)),  # half of it is outside
    ],
)
def test_a_photo_has_the_proportions_that_people_see(
    orientation: int, box: str | None, expected: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (240, 120), "grey").save(tmp_path / "photo.jpg", exif=exif)
    row = {"image_uri": f"file://{tmp_path}/photo.jpg", "image_etag": None, "box": box}
    ((data, reason),) = make_thumbnails([row], side_px=64, max_pixels=10**6)
    assert reason == ""
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1]))).convert("L"))
    assert shown.shape == expected[::-1]
    assert shown.min() > 100  # no frame


def test_few_photos_are_decoded_at_once_however_many_a_page_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, counts = thumbnails.decode_rows, list[int]()

    def count(manifest: pa.Table, **more: Any) -> Any:
        counts.append(len(manifest))
        return decode(manifest, **more)

    monkeypatch.setattr(thumbnails, "decode_rows", count)
    monkeypatch.setattr(thumbnails, "MAX_DECODED_BYTES", 2 * 3 * SIDE**2)
    for number in range(4):
        Image.new("RGB", (100 + 100 * number, 100), "grey").save(tmp_path / f"{number}.jpg")
    rows = [{"image_uri": f"file://{tmp_path}/{number}.jpg", "image_etag": None} for number in range(5)]
    found = make_thumbnails(rows, side_px=SIDE, max_pixels=10**6)
    assert counts == [2, 2, 1]
    sizes = [Image.open(io.BytesIO(base64.b64decode(data.split(",", 1)[1]))).size for data, _ in found[:4]]
    assert sizes == [(64, 64), (64, 32), (64, 21), (64, 16)]
    assert found[4][0] == ""
    assert found[4][1].startswith("deleted: ")
