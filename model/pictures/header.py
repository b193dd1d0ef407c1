"""Refuse what is no photo, or no photo to decode, from the first bytes of a file: its kind, its size, its frames."""

from __future__ import annotations

import io
import re
import struct

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model.pictures.errors import ImageError
from model.pictures.metadata import strip_broken_tags
from model.pictures.tiff import open_tiff

_MAX_SIDE = 2**17  # resizing holds side x size pixels in between: 180 MB at 448, but 22 GB for a 1 x 16,000,000 px file
# Plugins are called directly: Image.open would try others (EPS reaches ghostscript) and apply its global pixel limit.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"II[*+]\0|MM\0\*"), TiffImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"BM.{13}\0\0\0", re.DOTALL), BmpImageFile),
)
_OTHER_CONTENT: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"%PDF"), "not_an_image", "a PDF document"),
    (re.compile(rb"PK\x03\x04"), "not_an_image", "a ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "not_an_image", "a gzip archive"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "unsupported_format", "a PostScript drawing"),
    (re.compile(rb"....ftyp", re.DOTALL), "unsupported_format", "an ISO media file (HEIC, AVIF or video)"),
    (re.compile(rb"\0\0\0\x0cjP|\xff\x4f\xff\x51"), "unsupported_format", "a JPEG 2000 picture"),
    (re.compile(rb"MM\0\+"), "unsupported_format", "a big-endian BigTIFF"),
    (re.compile(rb"8BPS"), "unsupported_format", "a Photoshop document"),
    (re.compile(rb"\s*<[^\0]*<?svg\b", re.IGNORECASE), "unsupported_format", "an SVG drawing"),
    (re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype )?html", re.IGNORECASE | re.DOTALL), "not_an_image", "an HTML page"),
    (re.compile(rb"\s*<[?a-z!]", re.IGNORECASE), "not_an_image", "an XML document"),
    (re.compile(rb"\s*[{\[]\s*[\"{\[\]}\d]"), "not_an_image", "a JSON document"),
    (re.compile(rb"[^\0-\x08\x0e-\x1f\x7f-\xff]+\Z"), "not_an_image", "plain text"),
)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def open_image(data: bytes, max_pixels: int) -> ImageFile:
    """Reads the header alone; raises ImageError where the photo must not be decoded."""
    reader = next((reader for signature, reader in _READERS if signature.match(data)), None)
    if reader is None:
        raise explain_foreign_bytes(data)
    check_size(read_declared_size(data, reader), max_pixels)
    if reader is PngImageFile:
        reader(io.BytesIO(data)).verify()  # decoding alone skips the pixel data's checksums
    image = open_tiff(strip_broken_tags(data)) if reader is TiffImageFile else reader(io.BytesIO(data))
    check_size(image.size, max_pixels)
    if reader in (GifImageFile, PngImageFile, WebPImageFile) and (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError("animated", f"{frames} frames, expected a single still photo")
    if isinstance(image, TiffImageFile):
        check_size((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)), max_pixels)  # libtiff allocates whole tiles
        if image.tag_v2.get(254, 0) == 1:
            raise ImageError("unsupported_format", "the TIFF's first page is only a preview, as in a camera raw file")
    return image


def check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    """Raises ImageError for (width, height) in pixels with nothing to see or too much; None passes."""
    if size is None:
        return
    width, height = size
    if width == 0 or height == 0:
        raise ImageError("zero_size", f"the header declares {width} x {height} pixels, there is nothing to see")
    if max(width, height) > _MAX_SIDE:
        raise ImageError("too_many_pixels", f"a side of {width} x {height} pixels, at most {_MAX_SIDE} are resized")
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height} pixels, at most {max_pixels} are decoded")


def read_declared_size(data: bytes, reader: type[ImageFile]) -> tuple[int, int] | None:
    """Reads (width, height) where Pillow would hide a zero or allocate the canvas (WebP) before telling them."""
    if reader is PngImageFile and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if reader is WebPImageFile and len(data) >= 30:
        return read_webp_size(data)
    return read_jpeg_size(data) if reader is JpegImageFile else None


def read_webp_size(data: bytes) -> tuple[int, int] | None:
    """Reads (width, height) from the first chunk: extended, lossless or lossy (RFC 9649, section 2.7)."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def read_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Reads (width, height) from the first frame header of a JPEG; None where there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def explain_foreign_bytes(data: bytes) -> ImageError:
    """Returns the error that names what these bytes are, if they are no photo that can be read."""
    if not data:
        return ImageError("empty", "the object has 0 bytes")
    head = data[:512].removeprefix(b"\xef\xbb\xbf")
    code, kind = next(
        ((code, kind) for signature, code, kind in _OTHER_CONTENT if signature.match(head)),
        ("not_an_image", "unknown binary data"),
    )
    beginning = head[:100] if head.isascii() else head[:12]  # text tells what went wrong, as in an S3 error document
    return ImageError(code, f"expected JPEG, PNG, TIFF, WebP, BMP or GIF, got {kind}, beginning {beginning!r}")
