"""From the samples of an opened photo to 8-bit RGB: which sample value is black, and which is white."""

from __future__ import annotations

import numpy as np
from PIL.ImageFile import ImageFile

from model.pictures.errors import ImageError
from model.pictures.tiff import TiffSamples

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

_COLOUR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})
_SIGNED = 2


def convert_to_rgb(image: ImageFile) -> Pixels:
    """Converts to uint8 (H, W, 3); wide samples by the range they declare, never by the photo's own extremes."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = narrow_samples(image)
        return np.stack((grey, grey, grey), axis=-1)
    if image.mode not in _COLOUR_MODES:
        raise ImageError("unsupported_format", f"{image.format} with {image.mode} pixels, store it as RGB or grey")
    if image.has_transparency_data:
        # Composited on black, like the corners of rotated views: the colour hidden below alpha 0 is the encoder's whim.
        return np.array(image.convert("RGBA").convert("RGBa"))[..., :3]
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def narrow_samples(image: ImageFile) -> Pixels:
    """Converts 12-bit, 16-bit, 32-bit or float grey to uint8 (H, W); raises ImageError for samples out of range."""
    declared: TiffSamples | None = image.info.get("samples")
    samples = np.array(image, dtype=np.float64)
    white = find_white(image.mode, declared, highest=float(samples.max()))
    if white is None:
        raise ImageError("unsupported_format", f"{image.format} of {declared}: which signed value is white is unknown")
    if not (samples.min() >= 0 and samples.max() <= white):  # written so that NaN is refused too
        raise ImageError("unsupported_format", f"{image.format} samples outside 0..{white:g}: their white is unknown")
    # Wide integers keep their high byte, which is what Pillow keeps of 16-bit colour.
    levels = np.rint(samples * 255 / white) if image.mode == "F" else samples * 256 // (white + 1)
    narrow = levels.astype(np.uint8)
    return 255 - narrow if declared is not None and declared.photometric == 0 else narrow


def find_white(mode: str, declared: TiffSamples | None, *, highest: float) -> float | None:
    """Finds the sample value that is white, None where nothing tells.

    Args:
        mode: Pillow's.
        declared: what a TIFF says.
        highest: largest sample of this photo: a declared maximum below it is wrong, and is not believed.
    """
    if declared is not None and declared.maximum is not None and highest <= declared.maximum:
        return float(declared.maximum)
    if mode == "F":
        return 1.0
    if declared is not None and declared.kind == _SIGNED and declared.bits[0] == 16:
        return None
    return 4095.0 if declared is not None and declared.bits[0] == 12 else 65535.0
