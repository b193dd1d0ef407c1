"""Which sample value is black, and which is white: as the detector says, as the file declares, or its full range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.pictures.errors import ImageError
from model.pictures.tiff import SIGNED, TiffSamples

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Samples = np.ndarray[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Levels:
    """What a detector shows as black and as white, in the units of a file's samples; the same for all its photos.

    Attributes:
        black: sample value of level 0; None is 0.
        white: sample value of level 255; None is what the file declares.
    """

    black: float | None = None
    white: float | None = None

    @property
    def are_given(self) -> bool:
        """Whether the detector says anything at all."""
        return self.black is not None or self.white is not None


def narrow_samples(
    samples: Samples, *, levels: Levels, declared: TiffSamples | None = None, significant_bits: int | None = None
) -> Pixels:
    """Converts samples of any kind to uint8 of the same shape, 0 for black and 255 for white.

    Args:
        samples: as stored.
        levels: what the detector says; samples beyond them are black or white.
        declared: what a TIFF says.
        significant_bits: what a PNG of 16 bits says (sBIT).

    Raises:
        ImageError: samples that are no number, or whose white nobody knows.
    """
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN makes both NaN
        raise ImageError("unsupported_format", "samples that are no number (NaN or infinite)")
    if declared is not None and declared.kind != SIGNED and low < 0 and samples.dtype.kind == "i":
        raise ImageError("unsupported_format", "samples of 32 bits beyond 2147483647: they are not read")
    white = find_white(samples, declared, highest=high)
    if significant_bits is not None and counts_from_the_bottom(samples, significant_bits, highest=high):
        white = 2.0**significant_bits - 1
    if levels.are_given:
        check_reach(samples, levels, declared)
        white = white if levels.white is None else levels.white
    if white is None:
        raise ImageError("unsupported_format", f"TIFF of {declared}: which signed value is white is unknown")
    if not levels.are_given and not (low >= 0 and high <= white):
        raise ImageError("unsupported_format", f"samples outside 0..{white:g}: their white is unknown")
    black = levels.black or 0.0
    if not black < white:
        raise ImageError("unsupported_format", f"black is {black:g} and white {white:g}, needed black below white")
    narrow = scale_to_bytes(samples, black=black, white=white)
    return 255 - narrow if declared is not None and declared.photometric == 0 else narrow


def find_white(samples: Samples, declared: TiffSamples | None, *, highest: float) -> float | None:
    """Finds the sample value that is white by what the file says, None where nothing tells.

    Args:
        samples: as stored.
        declared: what a TIFF says.
        highest: largest sample of this photo: a declared maximum below it is wrong, and is not believed.
    """
    if samples.dtype == np.uint8:
        return 255.0
    if declared is not None and declared.maximum is not None and highest <= declared.maximum:
        return float(declared.maximum)
    if samples.dtype.kind == "f":
        return 1.0
    if declared is not None and declared.kind == SIGNED and declared.bits[0] == 16:
        return None
    return 4095.0 if declared is not None and declared.bits[0] == 12 else 65535.0


def counts_from_the_bottom(samples: Samples, significant_bits: int, *, highest: float) -> bool:
    """Tells whether 16-bit samples are counts of fewer bits that were not scaled up.

    The standard wants them scaled, by shifting or by repeating the high bits. Many cameras write the counts as they
    are. Below ``2 ** bits`` a scaled sample has zeros for its low bits (or one, by rounding); counts do not.
    """
    low_bits = 2 ** (16 - significant_bits) - 1
    return 8 <= significant_bits < 16 and highest < 2**significant_bits and bool(((samples & low_bits) > 1).any())


def check_reach(samples: Samples, levels: Levels, declared: TiffSamples | None) -> None:
    """Raises ImageError for a photo that could never be white: it is of another kind than the detector's photos."""
    if samples.dtype.kind != "u" or levels.white is None:
        return
    top = 4095 if declared is not None and declared.bits[0] == 12 else np.iinfo(samples.dtype).max
    if levels.white > top:
        detail = f"samples end at {top}, and the detector's white is {levels.white:g} (--detector.white)"
        raise ImageError("unsupported_format", detail)


def scale_to_bytes(samples: Samples, *, black: float, white: float) -> Pixels:
    """Scales black..white to 0..255; integers by equal shares of the range, so that 16 bits keep their high byte."""
    if samples.dtype in (np.uint8, np.uint16):
        table = np.arange(np.iinfo(samples.dtype).max + 1, dtype=np.float64)
        return _scale(table, black=black, width=white - black + 1, steps=256).astype(np.uint8)[samples]
    if samples.dtype.kind == "f":
        scaled = np.rint((samples.astype(np.float64) - black) * (255 / (white - black)))
        return scaled.clip(0, 255).astype(np.uint8)
    return _scale(samples.astype(np.float64), black=black, width=white - black + 1, steps=256).astype(np.uint8)


def _scale(samples: Samples, *, black: float, width: float, steps: int) -> Samples:
    return ((samples - black) * steps // width).clip(0, steps - 1)
