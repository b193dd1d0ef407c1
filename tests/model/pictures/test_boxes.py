"""Boxes: parts of a photo in pixels as stored, whatever its format and however EXIF turns it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from model.image import ImageError, Part, decode_image, decode_parts
from model.pictures.boxes import Box
from tests.support.bad_objects import ORIENTATIONS, encode, jpeg, photo, with_orientation

SIZE = 48
BOX = (10, 5, 40, 20)


def decode_box(data: bytes, box: Box) -> torch.Tensor:
    """Decodes one box; raises what it is refused for."""
    (found,) = decode_parts(data, [Part(SIZE, box=box)])
    if isinstance(found, ImageError):
        raise found
    return found


@pytest.mark.parametrize("orientation", [1, *ORIENTATIONS])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_a_box_counts_pixels_as_stored_and_its_crop_is_turned_upright(image_format: str, orientation: int) -> None:
    whole = with_orientation(photo(), orientation, image_format)
    stored = photo().transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else photo()
    if image_format == "WEBP":
        whole = encode(stored, "WEBP", exif=make_exif(orientation), lossless=True)
    x, y, width, height = BOX
    crop = encode(stored.crop((x, y, x + width, y + height)), "PNG", exif=make_exif(orientation))
    assert torch.equal(decode_box(whole, BOX), decode_image(crop, size=SIZE))


def make_exif(orientation: int) -> Image.Exif:
    """Makes EXIF data that says nothing but the orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_boxes_of_one_photo_are_what_each_is_alone_whatever_else_is_asked_of_it() -> None:
    data = jpeg(900, 700)
    boxes = [(0, 0, 900, 700), (30, 40, 500, 333), (100, 100, 9, 9)]
    together = decode_parts(data, [Part(SIZE), *(Part(SIZE, box=box) for box in boxes)])
    assert torch.equal(together[0], decode_image(data, size=SIZE))
    for box, found in zip(boxes, together[1:], strict=True):
        assert torch.equal(found, decode_box(data, box))


@pytest.mark.parametrize(
    ("box", "clipped"),
    [((-4, -3, 40, 20), (0, 0, 36, 17)), ((60, 50, 48, 20), (60, 50, 36, 14)), ((0, 0, 96, 64), (0, 0, 96, 64))],
)
def test_a_box_partly_outside_is_clipped_to_the_photo(box: Box, clipped: Box) -> None:
    data = encode(photo(), "PNG")
    assert torch.equal(decode_box(data, box), decode_box(data, clipped))


@pytest.mark.parametrize("box", [(96, 0, 5, 5), (-50, 0, 60, 64), (90, 60, 50, 50), (0, 0, 2**31, 2**31)])
def test_a_box_mostly_outside_is_refused_by_that_reason(box: Box) -> None:
    with pytest.raises(ImageError, match=r"box_outside.*lies in the photo of 96 x 64 pixels"):
        decode_box(encode(photo(), "PNG"), box)
