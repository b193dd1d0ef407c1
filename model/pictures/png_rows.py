"""Whether a PNG holds all of its rows: Pillow shows those that are missing as black, and says nothing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL.ImageFile import ImageFile

from model.pictures.errors import ImageError

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps between them, of Adam7's passes."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> samples of a pixel."""
_CHUNK_BYTES = 2**20


def check_rows(image: ImageFile, data: bytes) -> None:
    """Raises ImageError where a decoded PNG lacks rows.

    They are counted only where one of the last two is black, which costs a second unpacking.
    """
    width, height = image.size
    last = np.asarray(image.crop((0, max(height - 2, 0), width, height)))
    if last.reshape(len(last), -1).any(axis=1).all():
        return
    needed = measure_rows(data)
    if (found := measure_unpacked(data, needed)) < needed:
        raise ImageError("truncated", f"the PNG holds {found} bytes of pixels, needed {needed}: rows are missing")


def measure_rows(data: bytes) -> int:
    """Returns the bytes that the rows of a PNG take unpacked, by its header."""
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    passes = _PASSES if interlace else ((0, 0, 1, 1),)
    total = 0
    for first_column, first_row, column_step, row_step in passes:
        columns, rows = -(-(width - first_column) // column_step), -(-(height - first_row) // row_step)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits * _SAMPLES[colour] + 7) // 8)  # a byte for the row's filter
    return total


def measure_unpacked(data: bytes, needed: int) -> int:
    """Returns how many bytes the pixels of a PNG unpack to, counted up to ``needed``."""
    unpacker, found = zlib.decompressobj(), 0
    for part in list_pixel_chunks(data):
        while part and found < needed and not unpacker.eof:
            found += len(unpacker.decompress(part, _CHUNK_BYTES))
            part = unpacker.unconsumed_tail
    return found + len(unpacker.flush()) if found < needed else found


def list_pixel_chunks(data: bytes) -> Iterator[bytes]:
    """Yields the contents of a PNG's IDAT chunks."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += length + 12
