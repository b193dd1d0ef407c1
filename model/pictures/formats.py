"""Which reader a photo needs, by its first bytes and never by its name, and what other bytes are."""

from __future__ import annotations

import re

from PIL.AvifImagePlugin import SUPPORTED as READS_AVIF
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.features import check_codec
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model.pictures.errors import ImageError

HeifImageFile: type[ImageFile] | None
try:  # the optional extra "heif"
    from pillow_heif import HeifImageFile
except ImportError:
    HeifImageFile = None

# Plugins are called directly: Image.open would try others (EPS reaches ghostscript) and apply its global pixel limit.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"II[*+]\0|MM\0\*"), TiffImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"BM.{13}\0\0\0", re.DOTALL), BmpImageFile),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), Jpeg2KImageFile),
)
CONTAINERS: dict[type[ImageFile] | None, str] = {
    Jpeg2KImageFile: "a JPEG 2000 picture",
    AvifImageFile: "an AVIF picture",
    HeifImageFile: "a HEIC photo",
}
"""Formats of many codings, not all of which are read."""
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_OTHER_CONTENT: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"%PDF"), "not_an_image", "a PDF document"),
    (re.compile(rb"PK\x03\x04"), "not_an_image", "a ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "not_an_image", "a gzip archive"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "unsupported_format", "a PostScript drawing"),
    (re.compile(rb"....ftypcrx ", re.DOTALL), "unsupported_format", "a camera raw (CR3)"),
    (re.compile(rb"....ftyp(qt  |isom|iso\d|mp4\d|avc1|M4V )", re.DOTALL), "unsupported_format", "a video"),
    (re.compile(rb"....ftyp", re.DOTALL), "unsupported_format", "an ISO media file"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "unsupported_format", "a JPEG XL picture"),
    (re.compile(rb"FUJIFILMCCD-RAW"), "unsupported_format", "a camera raw (RAF)"),
    (re.compile(rb"II(RO|RS)|MMOR"), "unsupported_format", "a camera raw (ORF)"),
    (re.compile(rb"IIU\0"), "unsupported_format", "a camera raw (RW2)"),
    (re.compile(rb"MM\0\+"), "unsupported_format", "a big-endian BigTIFF"),
    (re.compile(rb"8BPS"), "unsupported_format", "a Photoshop document"),
    (re.compile(rb"P[1-7]\s"), "unsupported_format", "a PNM picture (PBM, PGM, PPM, PAM)"),
    (re.compile(rb"\0\0[\x01\x02]\0[\x01-\xff]\0"), "not_an_image", "a Windows icon"),
    (re.compile(rb"DDS "), "unsupported_format", "a DirectDraw surface"),
    (re.compile(rb"\x01\xda[\0\x01][\x01\x02]\0"), "unsupported_format", "an SGI picture"),
    (re.compile(rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]"), "unsupported_format", "a PCX picture"),
    (
        re.compile(rb"\0[\0\1][\1-\3\x09-\x0b].{13}[\x08\x0f\x10\x18\x20]", re.DOTALL),
        "unsupported_format",
        "a TGA picture",
    ),
    (re.compile(rb"v/1\x01"), "unsupported_format", "an OpenEXR picture"),
    (re.compile(rb"#\?RADIANCE"), "unsupported_format", "a Radiance picture"),
    (re.compile(rb"SIMPLE  ="), "unsupported_format", "a FITS picture"),
    (re.compile(rb"II\xbc"), "unsupported_format", "a JPEG XR picture"),
    (re.compile(rb".{128}DICM", re.DOTALL), "unsupported_format", "a DICOM picture"),
    (re.compile(rb"FFF\0"), "unsupported_format", "a thermal recording (FLIR)"),
    (re.compile(rb"\x89HDF"), "not_an_image", "an HDF5 file"),
    (re.compile(rb"\x93NUMPY"), "not_an_image", "a NumPy array"),
    (re.compile(rb"RIFF....AVI |\x1aE\xdf\xa3", re.DOTALL), "unsupported_format", "a video"),
    (re.compile(rb"7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|\x28\xb5\x2f\xfd"), "not_an_image", "a packed archive"),
    (re.compile(rb"PAR1"), "not_an_image", "a Parquet file"),
    (re.compile(rb"\s*<[^\0]*<?svg\b", re.IGNORECASE), "unsupported_format", "an SVG drawing"),
    (re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype )?html", re.IGNORECASE | re.DOTALL), "not_an_image", "an HTML page"),
    (re.compile(rb"\s*<[?a-z!]", re.IGNORECASE), "not_an_image", "an XML document"),
    (re.compile(rb"\s*[{\[]\s*[\"{\[\]}\d]"), "not_an_image", "a JSON document"),
    (re.compile(rb"[^\0-\x08\x0e-\x1f\x7f-\xff]+\Z"), "not_an_image", "plain text"),
)


def find_reader(data: bytes) -> type[ImageFile]:
    """Finds the class of Pillow's or of a plugin that reads these bytes.

    Raises:
        ImageError: they are no photo, or one of a format that cannot be read here; it names the format.
    """
    reader = next((reader for signature, reader in _READERS if signature.match(data)), None)
    if reader is Jpeg2KImageFile and not check_codec("jpg_2000"):
        raise ImageError("unsupported_format", "a JPEG 2000 picture, and this Pillow was built without OpenJPEG")
    if reader is None:
        reader = find_heif_reader(list_brands(data))
    if reader is None:
        raise explain_foreign_bytes(data)
    return reader


def list_brands(data: bytes) -> list[bytes]:
    """Lists the brands of an ISO media file, its own first; none where it is no such file."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def find_heif_reader(brands: list[bytes]) -> type[ImageFile] | None:
    """Finds the reader of a HEIF file: AVIF where it has such a brand, HEIC by the extra ``heif``.

    Raises:
        ImageError: it is such a file, and its reader is not installed.
    """
    if _AVIF_BRANDS.intersection(brands):
        if not READS_AVIF:
            raise ImageError("unsupported_format", "an AVIF picture, and this Pillow was built without libavif")
        return AvifImageFile
    if not brands or brands[0] not in _HEIC_BRANDS:
        return None
    if HeifImageFile is None:
        detail = "a HEIC photo: install the extra heif (pillow-heif), or store it as JPEG"
        raise ImageError("unsupported_format", detail)
    return HeifImageFile


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
    expected = "JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, AVIF or HEIC"
    return ImageError(code, f"expected {expected}, got {kind}, beginning {beginning!r}")
