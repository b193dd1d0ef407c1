"""A decoder that photos can kill: what the decoder's tests run in place of ``jobs.decoding.decoder_child``.

Files that crash a real decoder are rare and get fixed. Here a photo that begins with `MARKER` does what the rest of it
says, inside the process that decodes, and all other photos are decoded as ever.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

from jobs.decoding import decoder_child
from model.image import decode_parts

MARKER = "poison of the tests:"


def poison(deed: str) -> bytes:
    """A photo that makes its decoder segfault, exit, hang or hoard memory."""
    return (MARKER + deed).encode()


def obey_or_decode(data: bytes, *parts: Any, **options: Any) -> Any:
    """Does what a poisonous photo says; decodes any other."""
    if data == poison("segfault"):
        ctypes.string_at(0)
    elif data == poison("exit"):
        os._exit(3)
    elif data == poison("hang"):
        time.sleep(3600)
    elif data == poison("hoard"):
        bytearray(2**40)
    return decode_parts(data, *parts, **options)


if __name__ == "__main__":
    decoder_child.decode_parts = obey_or_decode
    decoder_child.main(sys.argv[1:])
