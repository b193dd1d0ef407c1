"""More of what an archive may hold: damage in every part of a file, other formats, files made to exhaust a decoder."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image

Encoder = Callable[..., bytes]


def damaged(photo: Image.Image, encode: Encoder) -> dict[str, tuple[bytes, str]]:
    """Files cut or altered in each of their parts, with the reason code that reading them must give.

    Args:
        photo: RGB, at least 64 pixels a side.
        encode: `bad_objects.encode`.
    """
    jpeg, png, gif = encode(photo, "JPEG", quality=92), encode(photo, "PNG"), encode(photo, "GIF")
    tables, scan = jpeg.index(b"\xff\xc4"), jpeg.index(b"\xff\xda")
    restarts = encode(photo, "JPEG", restart_marker_blocks=1)
    first_restart = restarts.index(b"\xff\xd0", restarts.index(b"\xff\xda"))
    return {
        "one_byte.jpg": (b"\xff", "not_an_image"),
        "signature_only.jpg": (jpeg[:3], "corrupt"),
        "signature_only.png": (png[:8], "truncated"),
        "nul_bytes.jpg": (bytes(4096), "not_an_image"),
        "cut_in_tables.jpg": (jpeg[: tables + 10], "truncated"),
        "cut_at_scan.jpg": (jpeg[: scan + 2], "corrupt"),
        "cut_near_end.jpg": (jpeg[:-20], "truncated"),
        "cut_after_header.png": (png[:33], "truncated"),
        "cut_near_end.png": (png[:-6], "truncated"),
        "cut.gif": (gif[: len(gif) // 2], "truncated"),
        "bad_huffman.jpg": (jpeg[: tables + 5] + b"\xff" * 16 + jpeg[tables + 21 :], "corrupt"),
        "marker_in_scan.jpg": (jpeg[: scan + 60] + b"\xff\xc4\0\x02" + jpeg[scan + 64 :], "corrupt"),
        "restart_lost.jpg": (restarts[:first_restart] + restarts[first_restart + 2 :], "corrupt"),
        "length_zero.jpg": (jpeg[: tables + 2] + b"\0\0" + jpeg[tables + 4 :], "corrupt"),
        "twelve_bit.jpg": (jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1), "corrupt"),
        "lossless.jpg": (jpeg.replace(b"\xff\xc0", b"\xff\xc3", 1), "corrupt"),
        "unknown_depth.png": (_with_ihdr(png, bits=7), "corrupt"),
        "unknown_filter.png": (_with_pixels(png, b"\x09" * (97 * 64)), "corrupt"),
        "pixels_missing.png": (_with_pixels(png, b""), "truncated"),
        "no_pages.tif": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "corrupt"),
        "page_beyond_end.tif": (b"II*\0\xff\xff\xff\x7f" + bytes(64), "corrupt"),
    }


def foreign() -> dict[str, tuple[bytes, str]]:
    """Beginnings of other formats, with the reason code."""
    rest = bytes(range(256)) * 4
    return {
        "phone.avif": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + rest, "unsupported_format"),
        "film.mp4": (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + rest, "unsupported_format"),
        "scan.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n" + rest, "unsupported_format"),
        "codestream.j2k": (b"\xff\x4f\xff\x51\0\x29" + rest, "unsupported_format"),
        "layers.psd": (b"8BPS\0\x01" + rest, "unsupported_format"),
        "icon.ico": (b"\0\0\x01\0\x01\0\x10\x10" + rest, "not_an_image"),
        "archive.7z": (b"7z\xbc\xaf\x27\x1c" + rest, "not_an_image"),
        "bytes.npy": (b"\x93NUMPY\x01\0" + rest, "not_an_image"),
        "throttled.jpg": (b"<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>", "not_an_image"),
        "page.jpg": (b"\xef\xbb\xbf<html><title>Sign in</title></html>", "not_an_image"),
        "zip_before_jpeg.jpg": (b"PK\x03\x04" + rest + b"\xff\xd8\xff", "not_an_image"),
    }


def bombs(photo: Image.Image, encode: Encoder) -> dict[str, tuple[bytes, str]]:
    """Small files that declare or hold far more than they are: refused from the header, with the reason code."""
    wide = {256: 60_000, 257: 60_000, 258: 8, 259: 1, 262: 1, 273: 8, 278: 60_000, 279: 64}
    gif = encode(photo, "GIF")
    tiles = {name: value for name, value in wide.items() if name not in (273, 278, 279)}
    return {
        "strips.tif": (tiff(wide), "too_many_pixels"),
        "tiles.tif": (tiff({**tiles, 322: 60_000, 323: 60_000, 324: 8, 325: 64}), "too_many_pixels"),
        "lossless.webp": (b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\xff\xff\xff\x0f" + bytes(16), "too_many_pixels"),
        "screen.gif": (gif[:6] + struct.pack("<HH", 65_000, 65_000) + gif[10:], "too_many_pixels"),
        "huge.bmp": (
            b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 60_000, 60_000, 1, 24) + bytes(64),
            "too_many_pixels",
        ),
    }


def unusual(photo: Image.Image, encode: Encoder) -> dict[str, bytes]:
    """Photos in more codings, all of which are read."""
    grey, jpeg = photo.convert("L"), encode(photo, "JPEG", quality=92)
    inverted = encode(photo.convert("CMYK"), "JPEG").replace(b"Adobe\0\x64\0\0\0\0\x00", b"Adobe\0\x64\0\0\0\0\x02", 1)
    tables, scan, gif = jpeg.index(b"\xff\xc4"), jpeg.index(b"\xff\xda"), encode(photo, "GIF")
    page = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 278: 8, 279: 64}
    comment = b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533)
    return {
        "profile_bomb.png": _png_with(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**26), 9)),
        "text_bomb.png": _png_with(b"zTXt", b"note\0\0" + zlib.compress(bytes(2**26), 9)),
        "ycck.jpg": inverted,
        "standard_tables_left_out.jpg": jpeg[:tables] + jpeg[scan:],
        "screen_of_zero.gif": gif[:6] + bytes(4) + gif[10:],
        "page_after_itself.tif": tiff(page, after=8),
        "restarts.jpg": encode(photo, "JPEG", restart_marker_blocks=1),
        "fully_sampled.jpg": encode(photo, "JPEG", subsampling=0),
        "grey_progressive.jpg": encode(grey, "JPEG", progressive=True),
        "long_comments.jpg": jpeg[:2] + 20 * comment + jpeg[2:],
        "broken_exif.jpg": encode(photo, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        "jpeg_before_zip.jpg": jpeg + b"PK\x03\x04" + bytes(999),
        "two_in_one.jpg": jpeg + jpeg,
        "interlaced_like.png": encode(photo.resize((1, 64)), "PNG"),
        "palette.png": encode(photo.quantize(7), "PNG"),
        "two_bit.png": encode(photo.quantize(4), "PNG", bits=2),
        "grey_palette.bmp": encode(grey, "BMP"),
        "one_bit.bmp": encode(photo.convert("1"), "BMP"),
        "lzw.tif": encode(photo, "TIFF", compression="tiff_lzw"),
        "packbits.tif": encode(photo, "TIFF", compression="packbits"),
        "jpeg_in.tif": encode(photo, "TIFF", compression="jpeg"),
        "fax.tif": encode(photo.convert("1"), "TIFF", compression="group4"),
        "cmyk.tif": encode(photo.convert("CMYK"), "TIFF"),
        "rgba.tif": encode(photo.convert("RGBA"), "TIFF"),
        "big_endian_16_bit.tif": encode(grey.convert("I;16B"), "TIFF"),
        "lossless_photo.webp": encode(photo, "WEBP", lossless=True),
        "alpha.webp": encode(photo.convert("RGBA"), "WEBP"),
        "transparent.gif": encode(photo.quantize(8), "GIF", transparency=1),
    }


def tiff(tags: dict[int, int], *, after: int = 0) -> bytes:
    """A little-endian TIFF of one page, its tags as 32-bit numbers, followed by 64 bytes of pixels.

    Args:
        tags: by number.
        after: offset of the next page.
    """
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", after) + bytes(64)


def jpeg_of_many_scans(photo: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan stands in it again and again: each is decoded over the whole photo."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + (scans - 1) * data[last:-2] + data[-2:]


def make_png_chunk(kind: bytes, body: bytes, *, flip: int = 0) -> bytes:
    """Makes a chunk of a PNG; ``flip``: bits of its checksum that are wrong."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ flip)


def _png_with(kind: bytes, body: bytes) -> bytes:
    header = make_png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = make_png_chunk(b"IDAT", zlib.compress(bytes(9 * 8)))
    return b"\x89PNG\r\n\x1a\n" + header + make_png_chunk(kind, body) + pixels + make_png_chunk(b"IEND", b"")


def _with_ihdr(png: bytes, *, bits: int) -> bytes:
    body = png[16:24] + bytes([bits]) + png[25:29]
    return png[:8] + make_png_chunk(b"IHDR", body) + png[33:]


def _with_pixels(png: bytes, rows: bytes) -> bytes:
    return png[:33] + make_png_chunk(b"IDAT", zlib.compress(rows)) + make_png_chunk(b"IEND", b"")
