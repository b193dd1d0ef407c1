"""HEIC, AVIF, JPEG 2000 and camera raw: read, or refused by the name of the format."""

from __future__ import annotations

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image

from model.image import ImageError, decode_image
from model.pictures import formats
from tests.support.bad_objects import encode, photo

SIZE = 32
GREY = photo().convert("L")


@pytest.fixture(scope="module", autouse=True)
def heif_encoder() -> None:
    """Lets Pillow write HEIC in these tests; reading needs no registration."""
    pillow_heif.register_heif_opener()


def decode(data: bytes) -> torch.Tensor:
    return decode_image(data, size=SIZE)


def difference(data: bytes, image: Image.Image) -> float:
    return float((decode(data).float() - decode(encode(image, "PNG")).float()).abs().mean())


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF", "JPEG2000"])
@pytest.mark.parametrize("image", [photo(), GREY], ids=["colour", "grey"])
def test_the_formats_of_phones_and_scanners_are_read(image_format: str, image: Image.Image) -> None:
    assert difference(encode(image, image_format, quality=95), image) < 6


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_a_phones_photo_stands_upright(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    laid_out = photo().transpose(Image.Transpose.ROTATE_90)
    assert difference(encode(laid_out, image_format, quality=95, exif=exif.tobytes()), photo()) < 6


def test_sixteen_bits_of_jpeg_2000_are_scaled_by_their_range() -> None:
    wide = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
    assert torch.equal(decode(encode(wide, "JPEG2000", irreversible=False)), decode(encode(GREY, "PNG")))


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF", "JPEG2000"])
def test_a_picture_beyond_the_limit_is_refused_from_its_header(image_format: str) -> None:
    with pytest.raises(ImageError, match="too_many_pixels: 96 x 64 pixels"):
        decode_image(encode(photo(), image_format), size=SIZE, max_pixels=96 * 64 - 1)


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF", "JPEG2000"])
def test_a_picture_that_was_cut_off_is_refused(image_format: str) -> None:
    data = encode(photo(), image_format)
    with pytest.raises(ImageError, match=r"truncated|corrupt|unsupported_format"):
        decode(data[: len(data) * 2 // 3])


def test_an_animated_avif_is_refused() -> None:
    data = encode(photo(), "AVIF", save_all=True, append_images=[photo().rotate(90)])
    with pytest.raises(ImageError, match="animated: 2 frames"):
        decode(data)


def test_a_heic_photo_without_its_reader_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo(), "HEIF")
    monkeypatch.setattr(formats, "HeifImageFile", None)
    with pytest.raises(ImageError, match=r"unsupported_format: a HEIC photo: install the extra heif"):
        decode(data)


def test_an_avif_picture_without_its_reader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "READS_AVIF", False)
    with pytest.raises(ImageError, match="unsupported_format: an AVIF picture"):
        decode(encode(photo(), "AVIF"))


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1", "an AVIF picture"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", r"a camera raw \(CR3\)"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL picture"),
        (b"FUJIFILMCCD-RAW 0201", r"a camera raw \(RAF\)"),
        (b"IIRO\x08\0\0\0", r"a camera raw \(ORF\)"),
        (b"IIU\0\x18\0\0\0", r"a camera raw \(RW2\)"),
        (b"P6\n128 96\n255\n", "a PNM picture"),
        (b"DDS |\0\0\0", "a DirectDraw surface"),
        (b"\x01\xda\x00\x01\x00\x03", "an SGI picture"),
        (b"\n\x05\x01\x08", "a PCX picture"),
        (b"v/1\x01\2\0\0\0", "an OpenEXR picture"),
        (b"SIMPLE  =                    T", "a FITS picture"),
        (bytes(128) + b"DICM", "a DICOM picture"),
        (b"FFF\0CAMERA", "a thermal recording"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_what_cannot_be_read_is_refused_by_its_name(beginning: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"unsupported_format: .*{name}"):
        decode(beginning + bytes(range(256)))


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"\0\0\x01\0\x01\0\x10\x10", "a Windows icon"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"7z\xbc\xaf", "a packed archive"),
        (b"PAR1\x15", "a Parquet file"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_what_is_no_picture_is_named_too(beginning: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"not_an_image: .*{name}"):
        decode(beginning + bytes(range(256)))
