"""Whether a file that cannot be decoded was cut short, by what its format says of its own length."""

from __future__ import annotations

_TO_THE_END = 0
_LONG = 1
"""Sizes of a box that are none: it ends with the file, or its size has eight bytes of their own."""
_END_OF_CODESTREAM = b"\xff\xd9"


def is_cut(data: bytes) -> bool:
    """Tells whether the bytes end before the file that they begin; False where its format does not tell."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"\xff\x4f\xff\x51"):
        return not data.endswith(_END_OF_CODESTREAM)
    return is_cut_in_boxes(data)


def is_cut_in_boxes(data: bytes) -> bool:
    """Tells it of AVIF, HEIC and JPEG 2000, whose boxes begin with their own sizes and types."""
    at = 0
    while at + 8 <= len(data):
        if not data[at + 4 : at + 8].isalnum() and data[at + 4 : at + 8] != b"jP  ":
            return False  # altered, or another format
        size_bytes = int.from_bytes(data[at : at + 4], "big")
        if size_bytes == _LONG:
            size_bytes = int.from_bytes(data[at + 8 : at + 16], "big")
        if size_bytes == _TO_THE_END:
            return data[at + 4 : at + 8] == b"jp2c" and not data.endswith(_END_OF_CODESTREAM)
        if size_bytes < 8:
            return False
        at += size_bytes
    return 0 < at != len(data)
