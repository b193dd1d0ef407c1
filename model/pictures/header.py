"""Refuse what is no photo, or no photo to decode, from the first bytes of a file: its kind, its size, its frames."""

from __future__ import annotations

import io
import struct

from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model.pictures.cuts import is_cut_in_boxes
from model.pictures.errors import ImageError
from model.pictures.formats import CONTAINERS, find_reader
from model.pictures.metadata import strip_broken_tags
from model.pictures.tiff import open_tiff

_MAX_SIDE = 2**17  # resizing holds side x size pixels in between: 180 MB at 448, but 22 GB for a 1 x 16,000,000 px file
_ANIMATED = (AvifImageFile, GifImageFile, PngImageFile, WebPImageFile)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def open_image(data: bytes, max_pixels: int) -> ImageFile:
    """Reads the header alone; raises ImageError where the photo must not be decoded."""
    reader = find_reader(data)
    check_size(read_declared_size(data, reader), max_pixels)
    if reader is PngImageFile:
        reader(io.BytesIO(data)).verify()  # decoding alone skips the pixel data's checksums
    image = open_tiff(strip_broken_tags(data)) if reader is TiffImageFile else open_other(data, reader)
    check_size(image.size, max_pixels)
    if reader in _ANIMATED and (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageError("animated", f"{frames} frames, expected a single still photo")
    if isinstance(image, TiffImageFile):
        check_size((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)), max_pixels)  # libtiff allocates whole tiles
        if image.tag_v2.get(254, 0) == 1:
            raise ImageError("unsupported_format", "the TIFF's first page is only a preview, as in a camera raw file")
    return image


def open_other(data: bytes, reader: type[ImageFile]) -> ImageFile:
    """Opens what is no TIFF; AVIF, HEIC and JPEG 2000 hold much that their readers do not know, and such is named."""
    try:
        return reader(io.BytesIO(data))
    except Exception as error:  # each plugin raises kinds of its own
        if reader not in CONTAINERS or isinstance(error, MemoryError) or is_cut_in_boxes(data):
            raise
        raise ImageError("unsupported_format", f"{CONTAINERS[reader]} that cannot be opened: {error}") from error


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


def read_stored_size(data: bytes) -> tuple[int, int] | None:
    """Reads (width, height) in pixels as stored, before a photo is turned upright, of one that can be decoded.

    Returns:
        None where the header alone does not tell, as where a photo was decoded without a header that is broken.
    """
    try:
        reader = find_reader(data)
        if reader is TiffImageFile:
            tags = open_tiff(strip_broken_tags(data)).tag_v2  # its size is that of the upright photo
            return int(tags[256]), int(tags[257])
        declared = read_declared_size(data, reader)
        return open_other(data, reader).size if declared is None else declared
    except Exception:  # each plugin raises kinds of its own, and the photo is decoded already
        return None


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
