"""The picture has a row a photo and a column a map, whatever its photos are called."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jobs.explanation.drawing import draw_overlay, mark_photo
from jobs.explanation.sheet import ExplainedPhoto, draw_sheet, make_font, shorten
from model.localization.explaining import GRADCAM, GRADCAM_WITHOUT, POSITIONS
from model.localization.places import Place

GREY = Image.new("RGB", (100, 50), (128, 128, 128))
SPOT = np.zeros((5, 10), np.float32)
SPOT[1, 2] = 9.0
PLACE = Place(0.25, 0.3, (0.2, 0.2, 0.1, 0.2), 1.0)


def _draw(*rows: ExplainedPhoto) -> Image.Image:
    return Image.open(io.BytesIO(draw_sheet(rows, panel_px=100)))


@pytest.mark.parametrize(
    ("names", "columns"), [((GRADCAM,), 2), ((POSITIONS, GRADCAM), 3), ((POSITIONS, GRADCAM, GRADCAM_WITHOUT), 4)]
)
def test_each_map_has_a_column(names: tuple[str, ...], columns: int) -> None:
    maps = dict.fromkeys(names, SPOT)
    sheet = _draw(ExplainedPhoto("a.jpg", "p-value 0.01", GREY, maps, PLACE))
    assert sheet.width == 8 + columns * 108


def test_a_photo_that_could_not_be_read_takes_the_room_of_its_reason() -> None:
    read = ExplainedPhoto("a.jpg", "p-value 0.01", GREY, {GRADCAM: SPOT})
    one = _draw(read).height
    both = _draw(read, ExplainedPhoto("b.jpg", "truncated: " + "it ends early, " * 20)).height
    assert 20 < both - one < 50 + 20 * 20
    assert both - one > _draw(read, ExplainedPhoto("b.jpg", "empty")).height - one


@pytest.mark.parametrize("key", [r"$\frac{1$.jpg", "\x1b[2Jred.jpg", "名前.jpg", "a\nb.jpg", "x" * 5000, "%s{0}.jpg"])
def test_a_hostile_key_is_drawn_as_text_of_one_line(key: str) -> None:
    title = shorten(key, room_px=200)
    assert title.isprintable()
    assert make_font().getlength(title) <= 200
    assert (
        _draw(ExplainedPhoto(key, key, GREY, {GRADCAM: SPOT})).height
        == _draw(ExplainedPhoto("a", "b", GREY, {GRADCAM: SPOT})).height
    )


def test_a_long_key_keeps_its_end() -> None:
    title = shorten("s3://archive/" + "folder/" * 50 + "photo-17.jpg", room_px=200)
    assert title.startswith("...")
    assert title.endswith("photo-17.jpg")


def test_the_colour_is_where_the_map_is_high_and_the_photo_is_untouched_where_it_is_0() -> None:
    drawn = np.asarray(draw_overlay(GREY, SPOT / np.float32(9))).astype(int)
    change = np.abs(drawn - 128).max(2)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert 10 <= row < 20
    assert 20 <= column < 30
    assert change[30:, 60:].max() == 0


@pytest.mark.parametrize("size", [(1, 1), (320, 1), (1, 320), (2, 2)])
def test_a_photo_a_pixel_wide_or_high_is_marked_too(size: tuple[int, int]) -> None:
    place = Place(0.8, 0.4, (0.7, 0.3, 1 / 7, 2 / 7), 0.5)
    photo = Image.new("RGB", size, "grey")
    marked = mark_photo(photo, place)
    assert marked.size == size
    assert marked.tobytes() != photo.tobytes()
