"""Photos without their metadata: a broken text, profile or EXIF block must not cost a photo whose pixels are whole.

Readers stop at the first block that they cannot make sense of. What a photo looks like never stands in such a block,
except its orientation, so a photo that cannot be read is tried again without them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL.PngImagePlugin import PngStream

_PNG_PIXELS = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT", b"sBIT"})
_WEBP_METADATA = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Chunk -> its flag in VP8X (RFC 9649, section 2.7.1)."""
_TIFF_PIXELS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292, 293, 317, 320, 322, 323}
    | {324, 325, 332, 338, 339, 340, 341, 347, *range(512, 522), 530, 531, 532, 50706}
)
"""Tags of TIFF 6.0 that say how pixels are stored, and 50706, which tells a camera raw file (DNG)."""
_TIFF_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_ADOBE_BYTES = 12


def strip_metadata(data: bytes) -> Iterator[bytes]:
    """Yields the photo with less and less metadata; nothing where there is none to leave out."""
    for signature, strips in _STRIPS.items():
        if data.startswith(signature):
            for strip in strips:
                bare = strip(data)
                if bare != data:
                    yield bare


def strip_png(data: bytes) -> bytes:
    """Leaves out the ancillary chunks of a PNG that Pillow cannot read, or whose checksum is wrong."""
    kept, at, stream = [data[:8]], 8, PngStream(io.BytesIO(data))
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        is_ancillary = bool(kind[:1].islower()) and kind not in _PNG_PIXELS
        if not is_ancillary or _reads_chunk(stream, data[at:end], at=at):
            kept.append(data[at:end])
        at = end
    return b"".join((*kept, data[at:]))


def _reads_chunk(stream: PngStream, chunk: bytes, *, at: int) -> bool:
    if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    stream.fp = io.BytesIO(chunk)
    stream.fp.seek(8)
    try:
        stream.call(chunk[4:8], at + 8, len(chunk) - 12)
    except AttributeError:  # a kind that Pillow has no use for
        return True
    except MemoryError:
        raise
    except Exception:  # whatever it is that Pillow cannot make sense of
        return False
    return True


def strip_jpeg(data: bytes) -> bytes:
    """Leaves out comments and application segments, but for EXIF and Adobe's, which says how colours are stored."""
    return _drop_segments(data, keep=lambda marker, body: marker == 0xE1 and body.startswith(b"Exif\0\0"))


def strip_jpeg_exif(data: bytes) -> bytes:
    """Leaves out EXIF as well."""
    return _drop_segments(data, keep=lambda marker, body: False)


def _drop_segments(data: bytes, *, keep: Callable[[int, bytes], bool]) -> bytes:
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body, end = data[at + 4 : at + 2 + length], at + 2 + length
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        is_adobe = marker == 0xEE and body.startswith(b"Adobe") and len(body) >= _ADOBE_BYTES
        if length < 2 or end > len(data):
            break
        if not is_metadata or is_adobe or keep(marker, body):
            kept.append(data[at:end])
        at = end
    return b"".join((*kept, data[at:]))


def strip_webp(data: bytes) -> bytes:
    """Leaves out profile, EXIF and XMP of a WebP, and the flags that announce them."""
    kept, at = [], 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if kind not in _WEBP_METADATA and at + 8 + length > len(data):
            return data  # the picture itself is cut off
        if kind == b"VP8X" and length >= 1:
            kept.append(data[at : at + 8] + bytes([data[at + 8] & ~sum(_WEBP_METADATA.values())]) + data[at + 9 : end])
        elif kind not in _WEBP_METADATA:
            kept.append(data[at:end])
        at = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def strip_tiff(data: bytes) -> bytes:
    """Leaves out all tags of the first page that say nothing about pixels."""
    return _drop_tags(data, keep=lambda tag, is_whole: tag in _TIFF_PIXELS)


def strip_broken_tags(data: bytes) -> bytes:
    """Leaves out those tags that say nothing about pixels and lie outside the file: Pillow reads none behind them."""
    return _drop_tags(data, keep=lambda tag, is_whole: is_whole or tag in _TIFF_PIXELS)


def _drop_tags(data: bytes, *, keep: Callable[[int, bool], bool]) -> bytes:
    """Rewrites the first directory in place, so that everything else stays where offsets point to."""
    order, is_big = (">" if data[:2] == b"MM" else "<"), data[2:3] == b"+"
    count_form, entry_bytes, room = (f"{order}Q", 20, 8) if is_big else (f"{order}H", 12, 4)
    offset_form = f"{order}{'Q' if is_big else 'I'}"
    try:
        (start,) = struct.unpack_from(offset_form, data, 8 if is_big else 4)
        (count,) = struct.unpack_from(count_form, data, start)
    except struct.error:
        return data
    first = start + struct.calcsize(count_form)
    end = first + count * entry_bytes
    if end + struct.calcsize(offset_form) > len(data):
        return data
    entries = [data[at : at + entry_bytes] for at in range(first, end, entry_bytes)]
    kept = []
    for entry in entries:
        tag, kind, items = struct.unpack_from(f"{order}HH{offset_form[1]}", entry)
        size = items * _TIFF_TYPE_BYTES.get(kind, 0)
        (offset,) = struct.unpack(offset_form, entry[-room:])
        if keep(tag, size <= room or offset + size <= len(data)):
            kept.append(entry)
    if len(kept) == len(entries):
        return data
    after = data[end : end + struct.calcsize(offset_form)]
    directory = struct.pack(count_form, len(kept)) + b"".join(kept) + after
    return data[:start] + directory + bytes(end + len(after) - start - len(directory)) + data[end + len(after) :]


_STRIPS: dict[bytes, tuple[Callable[[bytes], bytes], ...]] = {
    b"\x89PNG": (strip_png,),
    b"\xff\xd8\xff": (strip_jpeg, strip_jpeg_exif),
    b"RIFF": (strip_webp,),
    b"II": (strip_tiff,),
    b"MM": (strip_tiff,),
}
"""First bytes -> what is left out of such a file, one step after the other."""
