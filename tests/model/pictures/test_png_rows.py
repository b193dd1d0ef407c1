"""A PNG whose pixels end early is refused: Pillow would show the missing rows as black, as a scored photo."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

from model.image import ImageError, decode_image
from model.pictures import png_rows
from tests.support.hostile_files import make_png_chunk

WIDTH, HEIGHT = 400, 300
ADAM7 = tuple((slice(y, None, dy), slice(x, None, dx)) for x, y, dx, dy in png_rows._PASSES)


def make_png(pixels: np.ndarray, *, rows: float = 1.0, interlaced: bool = False) -> bytes:
    """Writes a grey PNG of 8 or 16 bits, or the first share of its rows."""
    parts = [pixels[place] for place in ADAM7] if interlaced else [pixels]
    raw = b"".join(
        b"\0" + row.astype(">u2" if pixels.dtype == np.uint16 else "u1").tobytes() for p in parts if p.size for row in p
    )
    packed = zlib.compress(raw[: int(len(raw) * rows)])
    header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), pixels.dtype.itemsize * 8, 0, 0, 0, interlaced)
    cut = len(packed) // 2
    pieces = make_png_chunk(b"IDAT", packed[:cut]) + make_png_chunk(b"IDAT", packed[cut:])
    return b"\x89PNG\r\n\x1a\n" + make_png_chunk(b"IHDR", header) + pieces + make_png_chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("rows", [0.3, 0.98])
def test_a_png_that_lacks_rows_is_refused(rows: float, kind: type, interlaced: bool) -> None:
    pixels = np.full((HEIGHT, WIDTH), 200 * (257 if kind is np.uint16 else 1), kind)
    with pytest.raises(ImageError, match="truncated: the "):
        decode_image(make_png(pixels, rows=rows, interlaced=interlaced), size=8)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (11, 13), (64, 3)])
def test_the_rows_of_a_png_are_measured(shape: tuple[int, int], interlaced: bool) -> None:
    data = make_png(np.zeros(shape, np.uint8), interlaced=interlaced)
    assert png_rows.measure_unpacked(data, 2**20) == png_rows.measure_rows(data)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (11, 13), (64, 3)])
@pytest.mark.parametrize("value", [0, 90])
def test_a_whole_png_is_read_also_a_black_one(value: int, shape: tuple[int, int], interlaced: bool) -> None:
    decoded = decode_image(make_png(np.full(shape, value, np.uint8), interlaced=interlaced), size=8)
    assert torch.equal(decoded, torch.full((3, 8, 8), value, dtype=torch.uint8))
