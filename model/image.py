"""Decode and resize inspection photos: the one path from bytes to pixels that training and scoring share.

Pixels are read as stored: ICC profiles are not applied and CMYK is converted naively, so the same bytes give the same
tensor on every machine with the same libraries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import simplejpeg
import torch
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from model.pictures.boxes import UPRIGHT, Box, cut_box
from model.pictures.errors import ImageError, explain_damage
from model.pictures.header import open_image
from model.pictures.levels import Levels, Pixels, narrow_samples
from model.pictures.metadata import strip_metadata
from model.pictures.png_rows import check_rows
from model.pictures.resizing import resize_photo
from model.pictures.rules import MAX_PIXELS, WHOLE, Resize, Tiles
from model.pictures.samples import convert_to_rgb, needs_low_bytes, select_low_bytes

__all__ = ["ImageError", "Part", "decode_image", "decode_parts"]

AS_DECLARED = Levels()
_DAMAGE = frozenset({"corrupt", "truncated"})
_JPEG_DAMAGE = re.compile(r"premature end of data|bad Huffman|instead of RST|bad arithmetic|Inconsistent progression")
_JPEG_STRAY_BYTES = re.compile(r"(\d+) extraneous bytes before marker 0xd[0-79a]")


@dataclass(frozen=True)
class Part:
    """What is wanted of a photo: all of it or a box, as the square that a detector sees, or its tiles together.

    Attributes:
        size: side S in pixels of the square, or of a tile.
        levels: sample values of black and white.
        resize: what becomes of a part of other proportions.
        box: part of the photo, in pixels as stored; None is all of it.
        tiles: that the part will be cut into.
    """

    size: int
    levels: Levels = AS_DECLARED
    resize: Resize = "stretch"
    box: Box | None = None
    tiles: Tiles = WHOLE

    @property
    def shape(self) -> tuple[int, int]:
        """Returns height and width in pixels of the result."""
        return self.tiles.measure_photo(self.size)


def decode_image(
    data: bytes,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    black: float | None = None,
    white: float | None = None,
    resize: Resize = "stretch",
    tiles: Tiles = WHOLE,
) -> Tensor:
    """Decodes one photo to the square that the detector sees, or to the pixels of its tiles.

    Args:
        data: the object's bytes: JPEG, PNG, TIFF (first page), WebP, BMP or GIF, told by content and not by name.
        size: side of the square, or of a tile, in pixels.
        max_pixels: largest width x height decoded; larger ones are refused from the header, before any allocation.
        black: sample value that is shown as black, in the file's units; None is 0.
        white: sample value that is shown as white; None is what the file declares, or the most its samples can hold.
        resize: what becomes of a photo of other proportions; stretch is DifferNet's.
        tiles: that the photo will be cut into by who scores it.

    Returns:
        uint8 (3, H, W) of `Tiles.measure_photo`, (3, size, size) without tiles; RGB in 0..255, contiguous, upright by
        EXIF, transparency on black.

    Raises:
        ImageError: the bytes are no single still photo that can be read whole.
        MemoryError: a photo within max_pixels does not fit into memory.
    """
    (found,) = decode_parts(data, [Part(size, Levels(black, white), resize, tiles=tiles)], max_pixels=max_pixels)
    if isinstance(found, ImageError):
        raise found
    return found


def decode_parts(data: bytes, parts: Sequence[Part], *, max_pixels: int = MAX_PIXELS) -> list[Tensor | ImageError]:
    """Decodes parts of one photo; the photo itself is decoded once for all of its boxes.

    Boxes are cut from the photo at its full resolution, so that what else is asked of it changes no pixel.

    Args:
        data: as for `decode_image`.
        parts: which.
        max_pixels: largest width x height decoded, of the photo.

    Returns:
        For each part what `decode_image` returns of a whole photo, or why this box cannot be cut out.

    Raises:
        ImageError, MemoryError: as `decode_image`, of the photo as a whole.
    """
    photos: dict[tuple[int | None, Levels], UprightPhoto] = {}
    found: list[Tensor | ImageError] = []
    for part in parts:
        size = max(part.shape) if part.box is None else None
        if (size, part.levels) not in photos:
            photos[size, part.levels] = read_photo(data, size, max_pixels, part.levels)
        photo = photos[size, part.levels]
        try:
            pixels = photo.pixels if part.box is None else cut_box(photo.pixels, part.box, orientation=photo.turned_by)
            found.append(resize_photo(pixels, part.shape, resize=part.resize))
        except ImageError as error:
            found.append(error)
    return found


@dataclass(frozen=True)
class UprightPhoto:
    """A decoded photo: uint8 (H, W, 3), and the EXIF orientation, 1 to 8, that turned it upright."""

    pixels: Tensor
    turned_by: int


def read_photo(data: bytes, size: int | None, max_pixels: int, levels: Levels) -> UprightPhoto:
    """Decodes as `read_upright` does, without metadata where they are what is broken; see `decode_image` for errors."""
    try:
        return read_whole(data, size, max_pixels, levels)
    except ImageError as error:
        if error.code not in _DAMAGE:
            raise
        return read_bare(data, size, max_pixels, levels, found=error)


def read_whole(data: bytes, size: int | None, max_pixels: int, levels: Levels) -> UprightPhoto:
    """Decodes as `read_upright` does; raises ImageError and MemoryError alone."""
    try:
        return read_upright(data, size, max_pixels, levels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # hostile bytes make decoders raise anything, and one photo must never end a run
        raise explain_damage(data, error) from error


def read_bare(data: bytes, size: int | None, max_pixels: int, levels: Levels, *, found: ImageError) -> UprightPhoto:
    """Decodes a photo without its metadata, which may be all that is broken.

    Args:
        data: the object's bytes.
        size: side that is needed; None for full resolution.
        max_pixels: largest photo decoded.
        levels: what is black and white.
        found: what it is refused for with its metadata.

    Raises:
        ImageError: of the last attempt, which speaks of pixels and not of metadata.
    """
    for bare in strip_metadata(data):
        try:
            return read_whole(bare, size, max_pixels, levels)
        except ImageError as error:
            if error.code != found.code or error.code != "truncated":  # else the first knows the size of the file
                found = error
    raise found


def read_upright(data: bytes, size: int | None, max_pixels: int, levels: Levels = AS_DECLARED) -> UprightPhoto:
    """Decodes a photo upright by EXIF; a large JPEG may come scaled down if a ``size`` is given, see `decode_jpeg`."""
    image = open_image(data, max_pixels)
    # Pillow turns a TIFF upright while loading and then drops its orientation.
    turned_by_pillow = read_orientation(image) if isinstance(image, TiffImageFile) else 1
    pixels = decode_jpeg(data, image, size) if image.format == "JPEG" and image.mode in ("L", "RGB") else None
    if pixels is None:
        pixels = torch.from_numpy(load_rgb(data, image, max_pixels, levels))
    elif levels.are_given:
        pixels = torch.from_numpy(narrow_samples(pixels.numpy(), levels=levels))
    orientation = read_orientation(image)
    if orientation not in UPRIGHT:
        return UprightPhoto(pixels, turned_by_pillow)
    swap, mirrored = UPRIGHT[orientation]
    return UprightPhoto((pixels.transpose(0, 1) if swap else pixels).flip(mirrored), orientation)


def load_rgb(data: bytes, image: ImageFile, max_pixels: int, levels: Levels) -> Pixels:
    """Decodes (H, W, 3) with Pillow; 16-bit colour a second time where its low bytes matter."""
    low_bytes = None
    if needs_low_bytes(image, levels=levels, data=data):
        low_bytes = select_low_bytes(open_image(data, max_pixels))
        low_bytes.load()
    image.load()
    if image.format == "PNG":
        check_rows(image, data)
    return convert_to_rgb(image, low_bytes, levels=levels, data=data)


def decode_jpeg(data: bytes, image: ImageFile, size: int | None) -> Tensor | None:
    """Decodes (H, W, 3) with libjpeg-turbo, or gives None where its complaint leaves the pixels to Pillow.

    Scaling inside the DCT stays at >= 3 sizes and is used only from 2:1, so that photos of any size score alike. Three
    UAV photos upscaled to 12 and 20 MP, to 448, against full decode and exact resize (CPU ms; worst mean / worst error
    of 255): full decode 44 and 65 ms, 0.26 / 1; this rule 27 and 40 ms, 0.29 / 2.2; from 1 size 22 and 26 ms, 1.1 / 30.
    Scales 3:4 and 7:8 took longer than no scaling; 5:8 of 1152x864 gained 0.6 of 8 ms for 0.79 / 20.

    Raises:
        ImageError: the pixel data is damaged.
    """
    floor = 3 * size if size is not None and min(image.size) >= 6 * size else 0
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(data, min_height=floor, min_width=floor))
    except ValueError as error:
        if is_jpeg_damage(str(error), data):
            raise ImageError("corrupt", f"JPEG pixel data is damaged: {error}") from error
        return None


def is_jpeg_damage(complaint: str, data: bytes) -> bool:
    """Tells whether libjpeg lost pixels; Pillow would show grey or shifted blocks there and say nothing."""
    stray = _JPEG_STRAY_BYTES.search(complaint)
    if stray is None:
        return _JPEG_DAMAGE.search(complaint) is not None
    end = data.rfind(b"\xff\xd9")
    # Zeros before the end marker are taken for padding; other bytes are picture that found no place.
    return data[max(end - int(stray[1]), 0) : end].strip(b"\0") != b""


def read_orientation(image: ImageFile) -> int:
    """Reads the EXIF orientation, 1 to 8 if sound; 1 where it is absent or broken."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except MemoryError:
        raise
    except Exception:  # Pillow raises a dozen kinds on broken EXIF, and the pixels are whole all the same
        return 1
    return orientation if isinstance(orientation, int) else 1
