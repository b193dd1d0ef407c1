"""A photo that was cut short is called so in every format, wherever the cut is."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.image import ImageError, decode_image

_FORMATS: dict[str, dict[str, Any]] = {
    "AVIF": {},
    "JPEG": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"},
    "WEBP": {},
    "PNG": {},
    "GIF": {},
    "BMP": {},
    "JPEG2000": {},
    "TIFF": {},
    "JPEG2000 without boxes": {"no_jp2": True},
}


def _encode(name: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, name.split(" ")[0], **_FORMATS[name])
    return file.getvalue()


@pytest.mark.parametrize("name", list(_FORMATS))
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_is_truncated(name: str, share: float) -> None:
    data = _encode(name)
    cut = data[: max(int(len(data) * share), 128)]
    with pytest.raises(ImageError, match="truncated") as caught:
        decode_image(cut, size=32)
    assert caught.value.code == "truncated"
    assert f"ends after {len(cut)} bytes" in caught.value.detail


@pytest.mark.parametrize("name", list(_FORMATS))
def test_a_whole_file_is_read(name: str) -> None:
    assert decode_image(_encode(name), size=32).shape == (3, 32, 32)


def test_an_altered_file_of_boxes_is_not_called_cut() -> None:
    data = bytearray(_encode("AVIF"))
    data[data.index(b"av1C") : data.index(b"av1C") + 4] = b"nope"
    with pytest.raises(ImageError, match="unsupported_format: an AVIF picture that cannot be opened"):
        decode_image(bytes(data), size=32)


def test_a_decoder_that_says_nothing_is_quoted_by_its_kind_of_error() -> None:
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"PLTE") - 4
    size = 12 + int.from_bytes(data[at : at + 4], "big")
    with pytest.raises(ImageError, match=r"corrupt: the picture cannot be decoded: \w+"):
        decode_image(data[:at] + data[at + size :], size=32)
