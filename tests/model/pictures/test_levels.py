"""Which sample value is white: what the detector says, else what the file declares, else all that its samples hold."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch

from model.config import DetectorConfig
from model.image import ImageError, decode_image, read_upright
from model.pictures.contrast import warn_of_low_contrast
from model.pictures.levels import Levels
from tests.support.bad_objects import bad_objects, encode, photo
from tests.support.hostile_files import make_png_chunk

COUNTS = np.random.default_rng(0).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
GREY = COUNTS[..., :1]
OPAQUE = np.full_like(GREY, 65535)
GREYS = np.repeat(GREY >> 4, 3, axis=-1)
TWELVE_BITS = Levels(0, 4095)
KINDS = {
    "grey": (0, GREY, GREYS),
    "colour": (2, COUNTS, COUNTS >> 4),
    "grey and alpha": (4, np.concatenate([GREY, OPAQUE], -1), GREYS),
    "colour and alpha": (6, np.concatenate([COUNTS, OPAQUE], -1), COUNTS >> 4),
}
GOLDEN = {
    "still.gif": "66039e1df6ea",
    "grey_16_bit.png": "d3abfe017e2d",
    "colour_16_bit.png": "70290003adb5",
    "one_bit.png": "360ab1e24dd6",
    "palette_transparent.png": "2646f51ce6f4",
    "rgba.png": "db498e124eb5",
    "grey_alpha.png": "98e46b1761a2",
    "integer_32_bit.tif": "d3abfe017e2d",
    "float_32_bit.tif": "d3abfe017e2d",
    "plain.tif": "70290003adb5",
    "deflated.tif": "70290003adb5",
    "plain.bmp": "70290003adb5",
    "grey_palette.bmp": "d3abfe017e2d",
    "lzw.tif": "70290003adb5",
    "fax.tif": "360ab1e24dd6",
    "cmyk.tif": "70290003adb5",
    "rgba.tif": "70290003adb5",
    "big_endian_16_bit.tif": "f7b586904e36",
    "lossless_photo.webp": "70290003adb5",
}
"""Photo of the corpus -> beginning of the SHA-256 of its pixels before samples were read as declared."""


def read(data: bytes, levels: Levels = Levels()) -> np.ndarray:  # noqa: B008  # frozen
    return read_upright(data, 16, 10**6, levels).pixels.numpy()


def write_png(samples: np.ndarray, colour_type: int, *, significant_bits: int | None = None) -> bytes:
    """A PNG of 16-bit samples (H, W, C)."""
    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    declared = make_png_chunk(b"sBIT", bytes([significant_bits] * channels)) if significant_bits else b""
    header = make_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    pixels = make_png_chunk(b"IDAT", zlib.compress(rows)) + make_png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + declared + pixels


def write_tiff(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_counts_of_twelve_bits_keep_all_grey_levels_of_a_png_that_says_so(kind: str) -> None:
    colour_type, samples, expected = KINDS[kind]
    assert np.array_equal(read(write_png(samples, colour_type, significant_bits=12)), expected)


@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize("brightness", [1, 16])
def test_samples_that_were_scaled_up_as_the_standard_wants_are_not_scaled_again(kind: str, brightness: int) -> None:
    colour_type, samples, _ = KINDS[kind]
    dark = samples // brightness
    for scaled in (dark << 4, dark << 4 | dark >> 8):
        expected = np.broadcast_to(scaled >> 8, (20, 30, 3))
        assert np.array_equal(read(write_png(scaled, colour_type, significant_bits=12)), expected)


def test_a_png_that_says_nothing_has_all_its_bits() -> None:
    assert np.array_equal(read(write_png(COUNTS, 2)), COUNTS >> 8)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_highest_value_that_a_tiff_declares_is_white(byteorder: str, compression: str | None) -> None:
    options = {"byteorder": byteorder, "compression": compression}
    one, three = (281, 3, 1, 4095, True), (281, 3, 3, (4095,) * 3, True)
    assert np.array_equal(read(write_tiff(GREY[..., 0], extratags=[one], **options)), GREYS)
    colour = write_tiff(COUNTS, photometric="rgb", extratags=[three], **options)
    assert np.array_equal(read(colour), COUNTS >> 4)


def test_a_declared_value_below_the_photos_own_is_not_believed() -> None:
    data = write_tiff(GREY[..., 0], extratags=[(281, 3, 1, 255, True)])
    assert np.array_equal(read(data), np.repeat(GREY >> 8, 3, axis=-1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_detectors_black_and_white_hold_for_every_kind(kind: str) -> None:
    colour_type, samples, expected = KINDS[kind]
    assert np.array_equal(read(write_png(samples, colour_type), TWELVE_BITS), expected)


def test_what_lies_beyond_black_and_white_is_black_or_white() -> None:
    pixels = read(write_png(GREY, 0), Levels(1000, 3000))[..., :1]
    assert (pixels[GREY <= 1000] == 0).all()
    assert (pixels[GREY >= 3000] == 255).all()
    assert len(np.unique(pixels)) > 100


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF"])
def test_eight_bits_are_spread_as_well(image_format: str) -> None:
    pixels = read(encode(photo(), image_format), Levels(50, 100))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_a_photo_that_cannot_reach_the_detectors_white_is_refused() -> None:
    with pytest.raises(ImageError, match=r"unsupported_format: samples end at 255, and the detector's white is 4095"):
        read(encode(photo(), "PNG"), TWELVE_BITS)


def test_signed_and_float_temperatures_have_their_own_units() -> None:
    celsius = np.linspace(-20, 60, 600, dtype=np.float32).reshape(20, 30)
    assert np.array_equal(np.unique(read(write_tiff(celsius), Levels(-20, 60))), np.arange(256))
    hundredths = (celsius * 100).astype(np.int16)
    assert np.array_equal(np.unique(read(write_tiff(hundredths), Levels(-2000, 6000))), np.arange(256))


def test_no_number_is_refused_even_with_black_and_white() -> None:
    holes = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(ImageError, match=r"unsupported_format: samples that are no number"):
        read(write_tiff(holes), Levels(-20, 60))


def test_black_and_white_that_are_given_as_the_full_range_change_nothing() -> None:
    assert np.array_equal(read(encode(photo(), "PNG"), Levels(0, 255)), np.asarray(photo()))
    assert np.array_equal(read(write_png(COUNTS, 2), Levels(0, 65535)), COUNTS >> 8)


def test_a_configuration_refuses_black_above_white() -> None:
    with pytest.raises(ValueError, match=r"needed black below white, got black 500 and white 100"):
        DetectorConfig(black=500, white=100)


def test_a_configuration_of_before_has_neither() -> None:
    stored = {name: value for name, value in DetectorConfig().model_dump().items() if name not in {"black", "white"}}
    config = DetectorConfig.model_validate(stored)
    assert (config.black, config.white) == (None, None)


def test_photos_of_few_levels_are_warned_of() -> None:
    dark = torch.randint(0, 16, (4, 3, 32, 32), dtype=torch.uint8)
    assert "levels 0 to 15 of 0 to 255" in str(warn_of_low_contrast(dark))


def test_one_hot_pixel_hides_no_dark_photos() -> None:
    dark = torch.randint(0, 16, (4, 3, 64, 64), dtype=torch.uint8)
    dark[0, :, 0, 0] = 255
    assert "levels 0 to 15" in str(warn_of_low_contrast(dark))


def test_photos_of_usual_contrast_are_not() -> None:
    images = decode_image(encode(photo(), "PNG"), size=32)[None]
    assert warn_of_low_contrast(images) is None


@pytest.mark.parametrize("key", GOLDEN)
def test_lossless_photos_keep_their_bits(key: str) -> None:
    data = next(bad.data for bad in bad_objects("") if bad.key == key)
    assert hashlib.sha256(read(data).tobytes()).hexdigest()[:12] == GOLDEN[key]
