"""What a TIFF says of its samples, and a refusal where Pillow would show other pixels than the file declares.

Pillow reads what its table `OPEN_INFO` lists. Most of it is right, compared with tifffile combination by combination
(tests/model/pictures/test_tiff.py); what is not is refused here, by name.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import ImagePalette
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from model.pictures.errors import ImageError

_KINDS = {1: "unsigned", 2: "signed", 3: "float", 4: "undefined", 5: "complex signed", 6: "complex float"}
_PHOTOMETRIC = {
    0: "white-is-zero grey",
    1: "black-is-zero grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "camera raw (DNG)",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear camera raw (DNG)",
}
_ASSOCIATED, _UNASSOCIATED = 1, 2
SIGNED = 2
"""Sample format (tag 339) of integers that may be negative."""
_DNG_VERSION = 50706


@dataclass(frozen=True)
class TiffSamples:
    """What the first page of a TIFF declares.

    Attributes:
        photometric: tag 262; 0 is white-is-zero.
        bits: bits of each sample of a pixel.
        kind: sample format (tag 339) of all samples, 0 where they differ.
        extra: kind of each sample beyond the colour (tag 338).
        is_planar: each colour lies in a plane of its own.
        is_raw: neither compressed nor packed.
        subsampling: of YCbCr, across and down.
        is_swapped: bits come lowest first (tag 266).
        maximum: highest sample value that is used (tag 281), None where the file does not say.
    """

    photometric: int
    bits: tuple[int, ...]
    kind: int
    extra: tuple[int, ...]
    is_planar: bool
    is_raw: bool
    subsampling: tuple[int, ...]
    is_swapped: bool
    maximum: int | None

    def __str__(self) -> str:
        """Returns the declaration as a person reads it."""
        bits = str(self.bits[0]) if len(set(self.bits)) == 1 else "/".join(map(str, self.bits))
        extra = f" of which {len(self.extra)} beside the colour" if self.extra else ""
        planes = ", a plane each" if self.is_planar else ""
        colour = _PHOTOMETRIC.get(self.photometric, f"photometric {self.photometric}")
        kind = _KINDS.get(self.kind, "mixed")
        return f"{colour}, {len(self.bits)} samples{extra} of {bits} bits {kind}{planes}"


def open_tiff(data: bytes) -> TiffImageFile:
    """Opens the first page; its declaration is ``image.info["samples"]``.

    Raises:
        ImageError: its samples are of a kind that is not read as declared.
    """
    tags = read_tags(data)
    samples = read_samples(tags)
    problem = find_misread(samples, is_dng=_DNG_VERSION in tags)
    if problem is not None:
        raise ImageError("unsupported_format", f"TIFF of {samples}: {problem}")
    try:
        image = TiffImageFile(io.BytesIO(data))
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):
            raise
        raise ImageError("unsupported_format", f"TIFF of {samples}, store it as RGB or grey") from error
    mend_rawmode(image)
    mend_palette(image, tags)
    image.info["samples"] = samples
    return image


def read_tags(data: bytes) -> ImageFileDirectory_v2:
    """Reads the tags of the first page, before Pillow decides what to make of them."""
    file = io.BytesIO(data)
    header = file.read(16 if data[2:4] in (b"+\0", b"\0+") else 8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    return tags


def read_samples(tags: ImageFileDirectory_v2) -> TiffSamples:
    """Reads the declaration; what is absent has the value that TIFF 6.0 gives it."""
    extra = _as_tuple(tags.get(338, ()))
    bits, count = _as_tuple(tags.get(258, 1)), tags.get(277, 1)
    kinds = set(_as_tuple(tags.get(339, 1)))
    maximum = {value for value in _as_tuple(tags.get(281, ())) if isinstance(value, int) and value > 0}
    return TiffSamples(
        photometric=tags.get(262, 0),
        bits=bits * count if len(bits) == 1 and isinstance(count, int) and 1 < count < 16 else bits,
        kind=kinds.pop() if len(kinds) == 1 else 0,
        extra=extra,
        is_planar=tags.get(284, 1) == 2 and count != 1,
        is_raw=tags.get(259, 1) == 1,
        subsampling=_as_tuple(tags.get(530, (2, 2))),
        is_swapped=tags.get(266, 1) == 2,
        maximum=max(maximum, default=None),
    )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def find_misread(samples: TiffSamples, *, is_dng: bool) -> str | None:
    """Returns why Pillow would show wrong pixels, or None where it reads these samples or says itself that it cannot.

    Args:
        samples: what the file declares.
        is_dng: it has the tag of Adobe's camera raw format.
    """
    if is_dng or samples.photometric in (32803, 34892):
        return "a camera raw (DNG) has to be developed, store the photo as JPEG or RGB TIFF"
    if samples.kind == SIGNED and samples.bits[0] < 16:
        return "signed bytes are not read"
    if samples.photometric == 6 and samples.is_raw and samples.subsampling != (1, 1):
        return "subsampled colour without compression is not read"
    if samples.photometric == 6 and samples.extra:
        return "samples beside this colour are not read"
    if samples.is_planar and not _reads_planes(samples):
        return "planes of their own are not read for these samples"
    if samples.is_swapped and samples.bits != (1,) and not samples.is_raw:
        return "swapped bits in compressed samples are not read"
    return None


def _reads_planes(samples: TiffSamples) -> bool:
    if samples.is_raw:
        return set(samples.bits) == {8} and samples.photometric in (2, 5) and samples.extra in ((), (_UNASSOCIATED,))
    if samples.extra in ((_ASSOCIATED,), (_UNASSOCIATED,)):
        return samples.photometric == 2
    return samples.photometric != 3 and not any(samples.extra)


def mend_rawmode(image: TiffImageFile) -> None:
    """Corrects the byte order of big-endian signed and float samples that libtiff has already turned."""
    native = {"F;32BF": "F;32NF", "I;32BS": "I;32NS"}
    for number, tile in enumerate(image.tile):
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple) and tile.args[0] in native:
            image.tile[number] = tile._replace(args=(native[tile.args[0]], *tile.args[1:]))


def mend_palette(image: TiffImageFile, tags: ImageFileDirectory_v2) -> None:
    """Takes a palette of 8-bit colours for what it is, as libtiff does; the 16 bits of the standard would be black."""
    colours = tags.get(320, ())
    if image.palette is not None and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
