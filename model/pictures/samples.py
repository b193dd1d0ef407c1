"""From an opened photo to 8-bit RGB. Wide samples keep all their bits until it is known which of them matter."""

from __future__ import annotations

import sys

import numpy as np
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from model.pictures.errors import ImageError
from model.pictures.levels import Levels, Pixels, Samples, narrow_samples

_COLOUR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})
_LOW_BYTES = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
"""Byte order of 16-bit samples -> the order in which Pillow, which keeps the high byte, keeps the low one."""
_GREY_ALPHA = "LA;16B"
_WHOLE_COLOURS = ("RGB;16", "RGBX;16", "RGBA;16", _GREY_ALPHA)


def convert_to_rgb(image: ImageFile, low_bytes: ImageFile | None, *, levels: Levels, data: bytes) -> Pixels:
    """Converts to uint8 (H, W, 3); wide samples by the range they declare, never by the photo's own extremes.

    Args:
        image: loaded.
        low_bytes: the same photo of 16-bit colour, read by `select_low_bytes`, where its range has to be found.
        levels: what the detector shows as black and white.
        data: the file.
    """
    declared, bits = image.info.get("samples"), read_significant_bits(image, data)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = narrow_samples(np.array(image), levels=levels, declared=declared, significant_bits=bits)
        return np.stack((grey, grey, grey), axis=-1)
    if low_bytes is not None:
        wide = join_bytes(np.array(image), low_bytes)
        rgb = narrow_samples(wide[..., :3], levels=levels, declared=declared, significant_bits=bits)
        return rgb if wide.shape[-1] == 3 else multiply_alpha(rgb, wide[..., 3])
    if image.mode not in _COLOUR_MODES:
        raise ImageError("unsupported_format", f"{image.format} with {image.mode} pixels, store it as RGB or grey")
    pixels = convert_bytes(image)
    return narrow_samples(pixels, levels=levels) if levels.are_given else pixels


def convert_bytes(image: ImageFile) -> Pixels:
    """Converts a photo of 8-bit samples, or of fewer bits."""
    if image.has_transparency_data:
        # Composited on black, like the corners of rotated views: the colour hidden below alpha 0 is the encoder's whim.
        return np.array(image.convert("RGBA").convert("RGBa"))[..., :3]
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def join_bytes(high: Pixels, low_bytes: ImageFile) -> Samples:
    """Joins both bytes of 16-bit samples: uint16 (H, W, 3 or 4)."""
    low = np.array(low_bytes)
    if low_bytes.info.get("rawmode") != _GREY_ALPHA:
        joined: Samples = high.astype(np.uint16) << 8 | low
        return joined
    grey, alpha = low[..., 0].astype(np.uint16) << 8 | low[..., 1], low[..., 2].astype(np.uint16) << 8 | low[..., 3]
    return np.stack((grey, grey, grey, alpha), axis=-1)


def multiply_alpha(rgb: Pixels, alpha: Samples) -> Pixels:
    """Composites (H, W, 3) on black by 16-bit alpha (H, W)."""
    return np.rint(rgb * (alpha[..., None] / 65535)).astype(np.uint8)


def needs_low_bytes(image: ImageFile, *, levels: Levels, data: bytes) -> bool:
    """Tells whether 16-bit colour, of which Pillow keeps the high byte, has to be read whole.

    Raises:
        ImageError: it has to, and cannot be.
    """
    rawmodes = {read_rawmode(tile.args) for tile in image.tile}
    if not any(";16" in rawmode and not rawmode.startswith("I") for rawmode in rawmodes):
        return False
    declared, bits = image.info.get("samples"), read_significant_bits(image, data)
    is_narrow = declared is not None and declared.maximum is not None and declared.maximum < 65535
    is_asked = levels.are_given or bits is not None or is_narrow
    if is_asked and not all(rawmode.startswith(_WHOLE_COLOURS) for rawmode in rawmodes):
        detail = f"{image.format} of {declared}: its range cannot be mapped, store it as RGB or grey"
        raise ImageError("unsupported_format", detail)
    return is_asked


def select_low_bytes(image: ImageFile) -> ImageFile:
    """Makes an opened photo of 16-bit colour load the low byte of each sample; of grey and alpha both bytes."""
    for number, tile in enumerate(image.tile):
        image.info["rawmode"] = rawmode = read_rawmode(tile.args)
        # Two samples of 16 bits are as long as four of 8.
        low = "RGBA" if rawmode == _GREY_ALPHA else rawmode[:-1] + _LOW_BYTES[rawmode[-1]]
        args = low if isinstance(tile.args, str) else (low, *tile.args[1:]) if tile.args else tile.args
        image.tile[number] = tile._replace(args=args)
    return image


def read_rawmode(args: object) -> str:
    """Reads how the samples of a tile lie in the file, by Pillow's name."""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def read_significant_bits(image: ImageFile, data: bytes) -> int | None:
    """Reads the bits that matter of each sample of a 16-bit PNG (sBIT); None where it does not say."""
    if not isinstance(image, PngImageFile) or data[24] != 16:
        return None
    at = 33
    while at + 12 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"sBIT":
            colours = {0: 1, 2: 3, 4: 1, 6: 3}.get(data[25], 0)
            bits = max(data[at + 8 : at + 8 + min(colours, length)], default=0)
            return bits if 8 <= bits < 16 else None
        at += 12 + length
    return None
