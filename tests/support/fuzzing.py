"""Mutated image files against model.image: each is decoded or refused with a reason, within bounds of time and memory.

``python tests/fuzzing.py --mutations 20000`` (`make fuzz`) prints how many were tried and what became of them, and
exits with 1 if one of them broke a promise; its bytes are then in build/fuzz. Strategies are of hypothesis, so that a
failure of the short test shrinks.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path
from types import FrameType

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from model.image import ImageError, decode_image
from tests.support.bad_objects import encode, photo

SIZE = 32
MAX_PIXELS = 4_000_000
TIME_LIMIT_S = 10.0
MEMORY_LIMIT_BYTES = 400 * 2**20
"""Beyond what is in use at the start: 20 times the 12 MB of the largest photo allowed here, and what libraries keep."""


def seeds() -> list[bytes]:
    """Small valid files of the formats that photos come in, in every coding of theirs."""
    image = photo(40, 30)
    grey, alpha = image.convert("L"), image.convert("RGBA")
    return [
        encode(image, "JPEG"),
        encode(image, "JPEG", progressive=True),
        encode(image, "JPEG", restart_marker_blocks=2),
        encode(grey, "JPEG"),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "MPO", save_all=True, append_images=[image]),
        encode(image, "PNG"),
        encode(alpha, "PNG"),
        encode(image.quantize(16), "PNG", transparency=3),
        encode(grey.convert("I;16"), "PNG"),
        encode(image.convert("1"), "PNG"),
        *(encode(image, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        encode(image, "TIFF", compression="packbits"),
        encode(grey.convert("F").point(lambda value: value / 255), "TIFF"),
        encode(grey.convert("I;16"), "TIFF"),
        encode(image.convert("1"), "TIFF", compression="group4"),
        encode(image, "WEBP"),
        encode(alpha, "WEBP", lossless=True),
        encode(image, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        encode(image, "AVIF"),
        encode(image, "JPEG2000"),
        encode(grey, "JPEG2000", no_jp2=True),
        encode(grey.convert("I;16"), "TIFF", compression="tiff_lzw", tiffinfo={281: 4095}),
        encode(image, "GIF"),
        encode(image, "BMP"),
        encode(image.quantize(16), "BMP"),
    ]


_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@st.composite
def mutations(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A valid file after one to four changes: bits, bytes, cuts, insertions, repeats, splices, lengths."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.sampled_from([1, 1, 2, 2, 3, 4]))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if draw(st.booleans()):  # headers decide more than pixels do
            at %= 160
        # What does not begin as an image is never decoded: rarely worth a try.
        _change(draw, data, at if draw(st.integers(0, 19)) == 0 else max(at, 8), files)
    return _mended(bytes(data)) if draw(st.booleans()) else bytes(data)


def _mended(data: bytes) -> bytes:
    """A PNG with the checksums that its changed chunks need, so that what stands behind them is reached."""
    if not data.startswith(b"\x89PNG"):
        return data
    at, mended = 8, data[:8]
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        mended += data[at:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return mended + data[at:]


def _change(draw: st.DrawFn, data: bytearray, at: int, files: list[bytes]) -> None:
    kind = draw(st.sampled_from(["bit", "byte", "number", "cut", "drop", "insert", "repeat", "splice"]))
    length = draw(st.integers(1, 64))
    if kind == "bit" and at < len(data):
        data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == "byte" and at < len(data):
        data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xD8, 0xDA, 0xFE, 0xFF]))
    elif kind == "number":
        form = draw(st.sampled_from(["<H", ">H", "<I", ">I"]))
        number = draw(st.sampled_from(_NUMBERS)) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
        data[at : at + struct.calcsize(form)] = struct.pack(form, number)
    elif kind == "cut":
        del data[at:]
    elif kind == "drop":
        del data[at : at + length]
    elif kind == "insert":
        data[at:at] = draw(st.binary(min_size=1, max_size=64))
    elif kind == "repeat":
        data[at:at] = bytes(data[at : at + length]) * draw(st.integers(1, 40))
    elif kind == "splice":
        other = draw(st.sampled_from(files))
        begin = draw(st.integers(0, len(other) - 1))
        data[at : at + length] = other[begin : begin + draw(st.integers(1, 400))]


class PromiseBrokenError(Exception):
    """decode_image did what it promises not to do."""


def outcome(data: bytes) -> str:
    """``decoded`` or the reason code.

    Raises:
        PromiseBrokenError: anything else, or neither in time.
    """
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = decode_image(data, size=SIZE, max_pixels=MAX_PIXELS)
    except ImageError as error:
        return error.code
    except Exception as error:
        raise PromiseBrokenError(f"{type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if image.shape != (3, SIZE, SIZE) or image.dtype != torch.uint8:
        raise PromiseBrokenError(f"{image.dtype} {tuple(image.shape)}")
    return "decoded"


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not decoded within {TIME_LIMIT_S} s")


def limit_memory() -> None:
    """From now on this process cannot take more than the limit beyond what it has."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MEMORY_LIMIT_BYTES, resource.RLIM_INFINITY))


def main(argv: list[str]) -> int:
    """Tries many mutations, and says what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    files, counts, broken = seeds(), Counter[str](), []
    limit_memory()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff remarks on every second file

    @seed(asked.seed)
    @settings(
        max_examples=asked.mutations,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations(files))
    def attempt(data: bytes) -> None:
        try:
            counts[outcome(data)] += 1
        except PromiseBrokenError as error:
            broken.append(str(error))
            place = Path("build/fuzz") / f"{len(broken):04d}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            print(f"broken: {error}: {place}")

    began = time.monotonic()
    attempt()
    kinds = ", ".join(f"{count} {code}" for code, count in counts.most_common())
    print(f"{sum(counts.values()) + len(broken)} mutations in {time.monotonic() - began:.0f} s: {kinds}")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(broken)} broke a promise; peak memory {peak_mib:.0f} MiB")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
