"""Metadata never costs a photo, and leaving it out never hides damaged pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from model.image import ImageError, decode_image
from tests.support.bad_objects import encode, photo, with_orientation
from tests.support.hostile_files import make_png_chunk

SIZE = 32
PNG, JPEG, WEBP = encode(photo(), "PNG"), encode(photo(), "JPEG"), encode(photo(), "WEBP", lossless=True)
CORRUPT_ZLIB = b"\x78\x9c" + bytes(20)
PNG_CHUNKS = {
    "text without end": (b"tEXt", b""),
    "compressed text that is no zlib": (b"zTXt", b"note\0\0" + CORRUPT_ZLIB),
    "compressed text of another method": (b"zTXt", b"note\0\7" + zlib.compress(b"note")),
    "compressed text of 64 MiB": (b"zTXt", b"note\0\0" + zlib.compress(bytes(2**26), 9)),
    "international text of 64 MiB": (b"iTXt", b"note\0\1\0\0\0" + zlib.compress(bytes(2**26), 9)),
    "XMP of 64 MiB": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**26), 9)),
    "text in no encoding": (b"iTXt", b"note\0\0\0\0\0\xff\xfe\xfd"),
    "profile of 64 MiB": (b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**26), 9)),
    "profile of another method": (b"iCCP", b"icc\0\7" + zlib.compress(b"profile")),
    "profile without a method": (b"iCCP", b"icc"),
    "empty profile": (b"iCCP", b""),
    "short resolution": (b"pHYs", b"\0\0\1"),
    "empty resolution": (b"pHYs", b""),
    "short gamma": (b"gAMA", b"\0"),
    "empty gamma": (b"gAMA", b""),
    "short chromaticities": (b"cHRM", b"\0\0\1"),
    "odd chromaticities": (b"cHRM", bytes(31)),
    "short rendering intent": (b"sRGB", b""),
    "short date": (b"tIME", b"\0"),
    "broken EXIF": (b"eXIf", b"neither"),
    "unknown chunk": (b"qqQq", bytes(99)),
}


def decode(data: bytes) -> torch.Tensor:
    return decode_image(data, size=SIZE)


def make_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_a_broken_chunk_does_not_cost_a_png(name: str, place: str) -> None:
    at = 33 if place == "before the pixels" else len(PNG) - 12
    data = PNG[:at] + make_png_chunk(*PNG_CHUNKS[name]) + PNG[at:]
    assert torch.equal(decode(data), decode(PNG))


@pytest.mark.parametrize("place", [33, -12])
@pytest.mark.parametrize("kind", [b"tEXt", b"pHYs", b"iCCP", b"eXIf", b"sRGB"])
def test_a_wrong_checksum_of_metadata_does_not_cost_a_png(kind: bytes, place: int) -> None:
    data = PNG[:place] + make_png_chunk(kind, b"note\0\0 and more", flip=1) + PNG[place:]
    assert torch.equal(decode(data), decode(PNG))


def test_many_texts_together_do_not_cost_a_png() -> None:
    texts = make_png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2**20), 9)) * 70
    assert torch.equal(decode(PNG[:33] + texts + PNG[33:]), decode(PNG))


def test_a_png_keeps_its_orientation_beside_a_broken_chunk() -> None:
    turned = with_orientation(photo(), 6, "PNG")
    assert torch.equal(decode(turned[:33] + make_png_chunk(b"gAMA", b"") + turned[33:]), decode(PNG))


def test_a_png_keeps_its_transparency_beside_a_broken_chunk() -> None:
    data = encode(photo().quantize(16), "PNG", transparency=3)
    assert torch.equal(decode(data[:33] + make_png_chunk(b"gAMA", b"") + data[33:]), decode(data))


@pytest.mark.parametrize("broken", [b"", make_png_chunk(b"gAMA", b"")], ids=["alone", "beside broken metadata"])
def test_a_wrong_checksum_of_pixels_costs_a_png(broken: bytes) -> None:
    at = PNG.rindex(b"IEND") - 5
    data = PNG[:33] + broken + PNG[33:at] + bytes([PNG[at] ^ 1]) + PNG[at + 1 :]
    with pytest.raises(ImageError, match="corrupt"):
        decode(data)


def test_an_animation_stays_one_without_its_metadata() -> None:
    data = encode(photo(), "PNG", save_all=True, append_images=[photo().rotate(90)])
    with pytest.raises(ImageError, match="animated: 2 frames"):
        decode(data[:33] + make_png_chunk(b"gAMA", b"") + data[33:])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE0, b"JFIF"),
        (0xE0, b"JFIF\0"),
        (0xE1, b"Exif\0\0"),
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x1a\0\5\0\0\0\1\0\0\0\0"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<no xml"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xE2, b"MPF\0II*\0\xff\xff\xff\x7f"),
        (0xED, b"Photoshop 3.0\x008BIM\3\xed"),
        (0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\4abcd"),
        (0xED, b"Photoshop 3.0\x008BIM"),
        (0xEE, b"Adobe"),
        (0xEE, b"Adobe\0"),
        (0xFE, b""),
        (0xE4, bytes(65_533)),
    ],
    ids=repr,
)
def test_a_broken_segment_does_not_cost_a_jpeg(marker: int, body: bytes) -> None:
    assert torch.equal(decode(JPEG[:2] + make_segment(marker, body) + JPEG[2:]), decode(JPEG))


def test_a_jpeg_keeps_its_orientation_beside_a_broken_segment() -> None:
    turned = with_orientation(photo(), 6, "JPEG")
    data = turned[:2] + make_segment(0xE0, b"JFIF") + turned[2:]
    assert torch.equal(decode(data), decode(turned))


@pytest.mark.parametrize("broken", [b"", make_segment(0xE0, b"JFIF")], ids=["alone", "beside broken metadata"])
def test_damaged_pixels_cost_a_jpeg(broken: bytes) -> None:
    middle = len(JPEG) // 2
    with pytest.raises(ImageError, match="corrupt"):
        decode(JPEG[:2] + broken + JPEG[2:middle] + bytes(200) + JPEG[middle + 200 :])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["exif", "icc_profile", "xmp"])
@pytest.mark.parametrize("body", [b"\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", bytes(99_999)], ids=["short", "bad", "long"])
def test_broken_metadata_does_not_cost_a_webp(kind: str, body: bytes) -> None:
    assert torch.equal(decode(encode(photo(), "WEBP", lossless=True, **{kind: body})), decode(WEBP))


def test_metadata_that_is_announced_but_cut_off_does_not_cost_a_webp() -> None:
    data = encode(photo(), "WEBP", lossless=True, exif=b"Exif\0\0" + bytes(500))
    assert torch.equal(decode(data[:-200]), decode(WEBP))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("tag", [269, 270, 271, 272, 282, 305, 306, 315, 700, 34377, 34675, 65000])
def test_a_tag_that_lies_outside_does_not_cost_a_tiff(tag: int, compression: str) -> None:
    value = 72.5 if tag == 282 else b"some text" if tag > 320 else "some text"
    data = encode(photo(), "TIFF", compression=compression, tiffinfo={tag: value})
    clean = decode(encode(photo(), "TIFF", compression=compression))
    at = data.index(struct.pack("<H", tag), int.from_bytes(data[4:8], "little"))
    for offset in (0x7FFFFFFF, len(data)):
        assert torch.equal(decode(data[: at + 8] + struct.pack("<I", offset) + data[at + 12 :]), clean)


def test_no_declaration_behind_a_broken_tag_is_overlooked() -> None:
    samples, buffer = np.random.default_rng(3).random((24, 24), np.float32), io.BytesIO()
    tifffile.imwrite(buffer, samples, software="a program of some length", metadata=None, byteorder="<")
    clean, data = decode(buffer.getvalue()), buffer.getvalue()
    at = data.index(struct.pack("<HH", 305, 2), 8)
    assert torch.equal(decode(data[: at + 8] + struct.pack("<I", 0x7FFFFFFF) + data[at + 12 :]), clean)


@pytest.mark.parametrize("image_format", ["GIF", "BMP"])
def test_what_stands_beside_the_pixels_does_not_cost_a_photo(image_format: str) -> None:
    data = encode(photo(), image_format)
    if image_format == "GIF":
        start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
        noted = data[:start] + b"!\xfe\3abc\0" + b"!\xff\x0bNETSCAPE2.0\1\7\0" + b"!\xff\3abc\0" + data[start:]
    else:
        noted = data[:38] + b"\xff" * 8 + data[46:]
    assert torch.equal(decode(noted), decode(data))


def test_a_photo_that_pillow_reads_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.image.strip_metadata", lambda data: pytest.fail("tried without metadata"))
    assert torch.equal(decode(PNG), decode_image(encode(Image.open(io.BytesIO(PNG)), "PNG"), size=SIZE))
