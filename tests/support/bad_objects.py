"""What an archive holds besides good photos: drawn here, never read from files, the same bytes every time."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from gzip import compress
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from tests.support import hostile_files
from tests.support.hostile_files import make_png_chunk

Status = Literal["scored", "unreadable"]
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> how an upright photo is laid out in the file to be shown upright again."""


@dataclass(frozen=True)
class BadObject:
    """One object of an archive and what scoring must make of it."""

    key: str
    data: bytes
    status: Status
    code: str | None
    """ImageError.code where status is unreadable, None where it is scored."""


@cache
def photo(width: int = 96, height: int = 64) -> Image.Image:
    """Draws an RGB picture with gradients, noise and sharp edges and no symmetry. Do not change it: it is shared."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([255 * columns / width, 255 * rows / height, 128 + 0 * rows], axis=-1)
    pixels += np.random.default_rng(7).normal(0, 6, pixels.shape)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 6, width // 2, height // 2), fill=(30, 90, 40))
    draw.line((0, height, width, height // 3), fill=(220, 210, 200), width=3)
    return image


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Encodes with Pillow; options are Pillow's own for the format."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def jpeg(width: int = 96, height: int = 64) -> bytes:
    """A baseline JPEG of :func:`photo`."""
    return encode(photo(width, height), "JPEG", quality=92)


def with_orientation(image: Image.Image, orientation: int, image_format: str) -> bytes:
    """Encodes ``image`` laid out for an EXIF orientation of 1..8."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    laid_out = image.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else image
    options = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
    return encode(laid_out, image_format, exif=exif, **options)


def _png(width: int, height: int, *, bits: int = 8, rows: bytes = b"") -> bytes:
    """An RGB PNG written by hand: any declared size, any depth (``rows`` with a filter byte before each row)."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = make_png_chunk(b"IHDR", header) + make_png_chunk(b"IDAT", zlib.compress(rows)) + make_png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _png_of_16_bit_colour() -> bytes:
    wide = np.asarray(photo(), dtype=">u2") * np.array(257, dtype=">u2")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    return _png(96, 64, bits=16, rows=rows)


def _jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _scribbled(data: bytes) -> bytes:
    """Zeroes a run in the middle, where a JPEG's entropy-coded pixels are."""
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


def _frames() -> list[Image.Image]:
    return [photo().rotate(90 * quarter) for quarter in (1, 2)]


def _broken() -> dict[str, tuple[bytes, str]]:
    """Image files that are damaged, or hold what must not be decoded."""
    good_jpeg, good_png, bmp = jpeg(), encode(photo(), "PNG"), encode(photo(), "BMP")
    webp, tiff = encode(photo(), "WEBP"), encode(photo(), "TIFF")
    return {
        "truncated.jpg": (good_jpeg[: len(good_jpeg) // 2], "truncated"),
        "truncated_header.jpg": (good_jpeg[:100], "truncated"),
        "truncated.png": (good_png[: len(good_png) // 2], "truncated"),
        "truncated_chunk_name.png": (good_png[:40], "truncated"),
        "truncated.tif": (tiff[: len(tiff) // 2], "truncated"),
        "truncated.webp": (webp[: len(webp) // 2], "truncated"),
        "truncated.bmp": (bmp[: len(bmp) // 2], "truncated"),
        "truncated_progressive.jpg": (encode(photo(), "JPEG", progressive=True)[:-900], "truncated"),
        "corrupt_pixels.jpg": (_scribbled(good_jpeg), "corrupt"),
        "corrupt_header_crc.png": (_flipped(good_png, 30), "corrupt"),
        "corrupt_pixel_crc.png": (_flipped(good_png, good_png.rindex(b"IEND") - 5), "corrupt"),
        "corrupt.webp": (webp[:12] + bytes(len(webp) - 12), "corrupt"),
        "bomb.png": (_png(50_000, 50_000), "too_many_pixels"),
        "bomb.jpg": (_jpeg_of_size(50_000, 50_000), "too_many_pixels"),
        "bomb.webp": (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\0\xff\xff\0", "too_many_pixels"),
        "zero_size.png": (_png(0, 0), "zero_size"),
        "zero_height.jpg": (_jpeg_of_size(96, 0), "zero_size"),
        "animated.gif": (encode(photo(), "GIF", save_all=True, append_images=_frames()), "animated"),
        "animated.webp": (encode(photo(), "WEBP", save_all=True, append_images=_frames()), "animated"),
        "animated.png": (encode(photo(), "PNG", save_all=True, append_images=_frames()), "animated"),
        "float_white_unknown.tif": (encode(Image.new("F", (9, 9), 200.0), "TIFF"), "unsupported_format"),
    }


def _foreign() -> dict[str, tuple[bytes, str]]:
    """Objects that are no photo, most of them named as one."""
    noise = np.random.default_rng(11).bytes(5000)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + noise
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(hello) print\nshowpage\n"
    error = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
    svg = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    return {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"insulator 12, see the paper report\n", "not_an_image"),
        "git_lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "not_an_image"),
        "html.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image"),
        "s3_error.jpg": (error, "not_an_image"),
        "json.jpg": (b'{"message": "Forbidden"}', "not_an_image"),
        "report.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + noise, "not_an_image"),
        "photos.zip": (b"PK\x03\x04\x14\0" + noise, "not_an_image"),
        "random.jpg": (noise, "not_an_image"),
        "gzipped.jpg": (compress(jpeg(), mtime=0), "not_an_image"),
        "drawing.svg": (svg, "unsupported_format"),
        "drawing.eps": (postscript, "unsupported_format"),
        "postscript.jpg": (postscript, "unsupported_format"),
        "phone.heic": (heic, "unsupported_format"),
    }


def _unusual() -> dict[str, bytes]:
    """Photos in every coding that an archive may hold; all are scored."""
    image, rng = photo(), np.random.default_rng(3)
    alpha = Image.fromarray(rng.integers(0, 256, (64, 96), dtype=np.uint8))
    grey, wide = image.convert("L"), np.asarray(image.convert("L")).astype(np.uint16) * 257
    rotated = {f"exif_{turn}.jpg": with_orientation(image, turn, "JPEG") for turn in range(1, 9)}
    return rotated | {
        "png_named.jpg": encode(image, "PNG"),
        "jpeg_named.png": jpeg(),
        "jpeg_named.txt": jpeg(),
        "no_extension": jpeg(),
        "still.gif": encode(image, "GIF"),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(grey, "JPEG"),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "trailing_garbage.jpg": jpeg() + rng.bytes(999),
        "zero_padded.jpg": jpeg()[:-2] + bytes(64) + b"\xff\xd9",
        "grey_16_bit.png": encode(Image.fromarray(wide), "PNG"),
        "colour_16_bit.png": _png_of_16_bit_colour(),
        "one_bit.png": encode(image.convert("1"), "PNG"),
        "palette_transparent.png": encode(image.quantize(16), "PNG", transparency=3),
        "rgba.png": encode(Image.merge("RGBA", (*image.split(), alpha)), "PNG"),
        "grey_alpha.png": encode(Image.merge("LA", (grey, alpha)), "PNG"),
        "integer_32_bit.tif": encode(Image.fromarray(wide.astype(np.int32)), "TIFF"),
        "float_32_bit.tif": encode(Image.fromarray((wide / 65535).astype(np.float32)), "TIFF"),
        "multi_picture.jpg": encode(image, "MPO", save_all=True, append_images=_frames()),
        "multi_page.tif": encode(image, "TIFF", save_all=True, append_images=_frames()),
        "plain.tif": encode(image, "TIFF"),
        "deflated.tif": encode(image, "TIFF", compression="tiff_adobe_deflate"),
        "plain.bmp": encode(image, "BMP"),
        "plain.webp": encode(image, "WEBP"),
        "one_pixel.png": encode(image.crop((0, 0, 1, 1)), "PNG"),
        "elongated.png": encode(image.resize((3000, 2)), "PNG"),
    }


_AWKWARD_NAMES = (
    "two words.jpg",
    " leading space.jpg",
    "наземная-опора-№7.jpg",
    "鉄塔.jpg",
    "50%.jpg",
    "a%20b.jpg",
    "a+b.jpg",
    "c#d.jpg",
    "e?f.jpg",
    "g&h=i.jpg",
    "it's.jpg",
    'so "called".jpg',
    "tower.2024.tar.jpg",
    "UPPER.JPG",
    "semi;colon,comma.jpg",
    "[brackets]{1}.jpg",
    "x" * 180 + ".jpg",
    "y" * 900 + ".jpg",
    "two\nlines.jpg",
    "tab\there.jpg",
    "double//slash.jpg",
    "./dot.jpg",
    "ends in a dot..jpg",
)


@cache
def bad_objects(prefix: str = "insulator/") -> list[BadObject]:
    """Every kind of object that has no place in an archive of good photos, or only looks as if.

    Args:
        prefix: put before each name to make the key; with its slash.

    Returns:
        distinct keys, each with the status and the ImageError code that reading it must give.
    """
    unreadable = _broken() | _foreign() | hostile_files.damaged(photo(), encode) | hostile_files.foreign()
    unreadable |= hostile_files.bombs(photo(), encode)
    scored = _unusual() | hostile_files.unusual(photo(), encode) | {name: jpeg() for name in _AWKWARD_NAMES}
    return [BadObject(prefix + name, data, "unreadable", code) for name, (data, code) in unreadable.items()] + [
        BadObject(prefix + name, data, "scored", None) for name, data in scored.items()
    ]
