"""Photos that are no squares: stretched, with black beside them, or their middle alone."""

from __future__ import annotations

import pytest
import torch

from model.config import DetectorConfig, PixelRules, Resize
from model.image import Part, decode_image, decode_parts
from model.pictures.resizing import resize_photo
from tests.support.bad_objects import encode, jpeg, photo

SIZE = 48


def test_a_detector_of_before_stretches() -> None:
    assert DetectorConfig().pixel_rules == PixelRules(None, None, "stretch")
    data = jpeg()
    assert torch.equal(decode_image(data, size=SIZE), decode_image(data, size=SIZE, resize="stretch"))


@pytest.mark.parametrize(("width", "height"), [(96, 64), (30, 90), (300, 3), (1, 1)])
def test_a_letterbox_keeps_proportions_with_black_beside_the_photo(width: int, height: int) -> None:
    white = torch.full((height, width, 3), 255, dtype=torch.uint8)
    square = resize_photo(white, (SIZE, SIZE), resize="letterbox")
    rows, columns = (max(1, round(SIZE * side / max(width, height))) for side in (height, width))
    assert square.shape == (3, SIZE, SIZE)
    assert int((square == 255).sum()) == 3 * rows * columns
    assert int((square == 0).sum()) == 3 * (SIZE * SIZE - rows * columns)


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96)])
def test_a_crop_is_the_middle_square_of_the_photo(width: int, height: int) -> None:
    image = photo(width, height)
    left, top = (width - 64) // 2, (height - 64) // 2
    middle = encode(image.crop((left, top, left + 64, top + 64)), "PNG")
    found = decode_image(encode(image, "PNG"), size=SIZE, resize="crop")
    assert torch.equal(found, decode_image(middle, size=SIZE))


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_a_square_photo_is_the_same_in_all_ways_and_a_box_is_resized_as_a_photo_is(resize: Resize) -> None:
    square = encode(photo(64, 64), "PNG")
    assert torch.equal(decode_image(square, size=SIZE, resize=resize), decode_image(square, size=SIZE))
    (box,) = decode_parts(encode(photo(), "PNG"), [Part(SIZE, resize=resize, box=(8, 4, 60, 30))])
    crop = encode(photo().crop((8, 4, 68, 34)), "PNG")
    assert isinstance(box, torch.Tensor)
    assert torch.equal(box, decode_image(crop, size=SIZE, resize=resize))
