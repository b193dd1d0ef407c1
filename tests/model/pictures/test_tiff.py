"""TIFF samples as the file declares them, or a refusal: combination by combination against what tifffile wrote."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from model.image import ImageError, read_upright
from model.pictures.errors import explain_damage
from tests.support.bad_objects import encode, photo

HEIGHT, WIDTH = 20, 36
DTYPES = {("u", 8): "u1", ("u", 16): "u2", ("u", 32): "u4", ("u", 64): "u8", ("i", 8): "i1", ("i", 16): "i2"}
DTYPES |= {("i", 32): "i4", ("f", 16): "f2", ("f", 32): "f4", ("f", 64): "f8"}
COLOURS = {"miniswhite": 1, "minisblack": 1, "rgb": 3, "separated": 4, "ycbcr": 3, "cielab": 3}
EXTRAS = ((), (0,), (1,), (2,), (0, 0), (2, 0))
LAYOUTS = list(itertools.product("<>", (None, "zlib"), (None, (16, 16))))
FOUR_LAYOUTS = [LAYOUTS[0], LAYOUTS[3], LAYOUTS[5], LAYOUTS[6]]
"""Every byte order with every compression and both with strips and tiles, each pair of them once."""
NEVER_READ = {("u", 64), ("i", 8), ("f", 16), ("f", 64)}


def read(data: bytes) -> np.ndarray | str:
    """The pixels of a file, (H, W, 3), or the code of its refusal."""
    try:
        return read_upright(data, 16, 10**6).pixels.numpy()
    except ImageError as error:
        return error.code
    except Exception as error:
        return explain_damage(data, error).code


def draw_samples(kind: str, bits: int, count: int, extra: tuple[int, ...]) -> np.ndarray:
    """Random samples (H, W, S) of every value, colours that alpha has been multiplied into where it is associated."""
    rng, shape = np.random.default_rng(bits), (HEIGHT, WIDTH, count + len(extra))
    if kind == "f":
        samples = rng.random(shape)
    else:
        samples = rng.integers(0, 2 ** (bits - (kind == "i")), shape, dtype=np.uint64, endpoint=False)
    if extra[:1] == (1,):
        top = 1.0 if kind == "f" else 2.0 ** (bits - (kind == "i"))
        scaled = samples[..., :count] * (samples[..., count : count + 1] / top)
        samples[..., :count] = scaled.astype(samples.dtype)
    return samples.astype(DTYPES[kind, bits])


def to_levels(samples: np.ndarray) -> np.ndarray:
    """The high byte of integers, floats by 0..1."""
    if samples.dtype.kind == "f":
        return np.rint(samples.astype(np.float64) * 255)
    return (samples.astype(np.uint64) >> np.uint64(8 * samples.dtype.itemsize - 8)).astype(np.float64)


def expect(samples: np.ndarray, photometric: str, extra: tuple[int, ...]) -> np.ndarray:
    """The pixels that the samples mean, float (H, W, 3), transparency on black."""
    levels = to_levels(samples)
    alpha = levels[..., -len(extra), None] / 255 if extra[:1] == (2,) else 1.0
    if photometric in ("miniswhite", "minisblack"):
        grey = levels[..., :1] if photometric == "minisblack" else 255 - levels[..., :1]
        return np.repeat(grey * alpha, 3, axis=-1)
    if photometric == "separated":
        return (255 - levels[..., :3]) * (255 - levels[..., 3:4]) / 255
    if photometric == "ycbcr":
        return np.asarray(Image.fromarray(levels[..., :3].astype(np.uint8), "YCbCr").convert("RGB"), np.float64)
    return levels[..., :3] * alpha


def write(samples: np.ndarray, *, photometric: str, extra: tuple[int, ...] = (), planar: bool = False, **more) -> bytes:
    """A TIFF of samples (H, W, S), by tifffile."""
    buffer, options = io.BytesIO(), {"photometric": photometric, "metadata": None, **more}
    if samples.shape[-1] > 1:
        options["planarconfig"] = "separate" if planar else "contig"
    if extra:
        options["extrasamples"] = extra
    pixels = samples[..., 0] if samples.shape[-1] == 1 else np.moveaxis(samples, -1, 0) if planar else samples
    tifffile.imwrite(buffer, np.ascontiguousarray(pixels), **options)
    return buffer.getvalue()


def set_tag(data: bytes, tag: int, value: int) -> bytes:
    """Changes the short value of a tag of the first page of a little-endian file."""
    at = data.index(struct.pack("<HHI", tag, 3, 1), 8)
    return data[: at + 8] + struct.pack("<HH", value, 0) + data[at + 12 :]


def pack(values: np.ndarray, bits: int) -> bytes:
    """Rows of ``bits`` a value, the first value in the high bits, each row filled up to a byte."""
    places = np.arange(bits - 1, -1, -1)
    return np.packbits((values[..., None] >> places & 1).reshape(len(values), -1), axis=1).tobytes()


def write_packed(values: np.ndarray, bits: int, photometric: str) -> bytes:
    """A little-endian TIFF of one strip of packed grey, (H, W)."""
    data = write(values[..., None].astype(np.uint8), photometric=photometric, byteorder="<")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (offset,) = file.pages[0].dataoffsets
    packed = pack(values, bits)
    data = set_tag(data[:offset] + packed, 258, bits)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        counts = file.pages[0].tags[279]
    form, at = {3: "<H", 4: "<I"}[counts.dtype.value], counts.valueoffset
    return data[:at] + struct.pack(form, len(packed)) + data[at + struct.calcsize(form) :]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("extra", EXTRAS, ids=str)
@pytest.mark.parametrize("photometric", COLOURS)
@pytest.mark.parametrize(("kind", "bits"), DTYPES)
def test_samples_are_read_as_declared_or_refused(
    kind: str, bits: int, photometric: str, extra: tuple[int, ...]
) -> None:
    samples = draw_samples(kind, bits, COLOURS[photometric], extra)
    expected = expect(samples, photometric, extra)
    for planar in (False, True)[: 1 + (samples.shape[-1] > 1)]:
        for byteorder, compression, tile in FOUR_LAYOUTS[: 1 if (kind, bits) in NEVER_READ else 4]:
            data = write(
                samples,
                photometric=photometric,
                extra=extra,
                planar=planar,
                byteorder=byteorder,
                compression=compression,
                tile=tile,
            )
            found = read(data)
            if isinstance(found, str):
                assert found == "unsupported_format"
            else:
                assert np.abs(found - expected).max() <= 3, (planar, byteorder, compression, tile)


@pytest.mark.parametrize(("byteorder", "compression", "tile"), LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "bits", "photometric"),
    [
        ("u", 8, "minisblack"),
        ("u", 8, "miniswhite"),
        ("u", 8, "rgb"),
        ("u", 8, "separated"),
        ("u", 16, "minisblack"),
        ("u", 16, "rgb"),
        ("f", 32, "minisblack"),
        ("f", 32, "miniswhite"),
    ],
)
def test_the_usual_samples_are_read(
    kind: str, bits: int, photometric: str, byteorder: str, compression: str | None, tile: tuple[int, int] | None
) -> None:
    samples = draw_samples(kind, bits, COLOURS[photometric], ())
    data = write(samples, photometric=photometric, byteorder=byteorder, compression=compression, tile=tile)
    assert np.abs(read(data) - expect(samples, photometric, ())).max() <= 1


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_white_is_zero_is_no_negative(compression: str | None) -> None:
    samples = draw_samples("u", 16, 1, ())
    found = read(write(samples, photometric="miniswhite", compression=compression))
    assert np.array_equal(found[..., 0], 255 - (samples[..., 0] >> 8))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_packed_samples_keep_their_brightness(bits: int, photometric: str) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH))
    levels = values >> 4 if bits == 12 else values * 255 // (2**bits - 1)
    found = read(write_packed(values, bits, photometric))
    if bits == 12 and photometric == "miniswhite":
        assert isinstance(found, str)
        assert found == "unsupported_format"
    else:
        expected = 255 - levels if photometric == "miniswhite" else levels
        assert np.array_equal(found, np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.parametrize("bits", [3, 6, 10, 14])
def test_odd_numbers_of_bits_are_refused_by_name(bits: int) -> None:
    values = np.zeros((HEIGHT, WIDTH), np.int64)
    with pytest.raises(ImageError, match=f"unsupported_format: TIFF of black-is-zero grey, 1 samples of {bits} bits"):
        read_upright(write_packed(values, bits, "minisblack"), 16, 10**6)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compression_changes_no_pixel_that_it_keeps(compression: str) -> None:
    found = read(encode(photo(), "TIFF", compression=compression))
    assert np.abs(found.astype(int) - np.asarray(photo())).max() <= (90 if compression == "jpeg" else 0)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize(("dtype", "predictor"), [("u1", 2), ("u2", 2), ("f4", 3)])
def test_a_predictor_is_undone(dtype: str, predictor: int, compression: str) -> None:
    samples = draw_samples(dtype[0], 8 * int(dtype[1]), 1, ())[..., 0]
    image = Image.fromarray(samples)
    data = encode(image, "TIFF", compression=compression, tiffinfo={317: predictor})
    assert tifffile.TiffFile(io.BytesIO(data)).pages[0].predictor == predictor
    assert np.abs(read(data)[..., 0] - to_levels(samples)).max() <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.1, 1.1])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_float_beyond_black_and_white_refuses_the_photo(photometric: str, value: float) -> None:
    samples = np.full((HEIGHT, WIDTH, 1), 0.5, np.float32)
    samples[3, 4] = value
    assert read(write(samples, photometric=photometric)) == "unsupported_format"


@pytest.mark.parametrize("value", [-1, 70_000])
def test_one_integer_beyond_sixteen_bits_refuses_the_photo(value: int) -> None:
    samples = np.full((HEIGHT, WIDTH, 1), 500, np.int32)
    samples[3, 4] = value
    assert read(write(samples, photometric="minisblack")) == "unsupported_format"


@pytest.mark.parametrize("scale", [1, 257])
def test_a_palette_has_its_colours_in_eight_or_sixteen_bits(scale: int) -> None:
    rng = np.random.default_rng(2)
    colours, indices = rng.integers(0, 256, (3, 256)), rng.integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    data = write(indices, photometric="palette", colormap=(colours * scale).astype(np.uint16))
    assert np.array_equal(read(data), colours.T[indices[..., 0]])


def test_a_big_endian_bigtiff_is_refused_by_its_name() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 4), np.uint8), byteorder=">", bigtiff=True)
    with pytest.raises(ImageError, match=r"unsupported_format: .*big-endian BigTIFF"):
        read_upright(buffer.getvalue(), 16, 10**6)


@pytest.mark.parametrize(("byteorder", "bigtiff"), [("<", False), (">", False), ("<", True)])
def test_the_first_of_many_pages_is_the_photo(byteorder: str, bigtiff: bool) -> None:
    pages, buffer = np.random.default_rng(1).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8), io.BytesIO()
    tifffile.imwrite(buffer, pages, photometric="rgb", byteorder=byteorder, bigtiff=bigtiff, metadata=None)
    assert np.array_equal(read(buffer.getvalue()), pages[0])


def test_subsampled_colour_without_compression_is_refused() -> None:
    data = write(draw_samples("u", 8, 3, ()), photometric="ycbcr", subsampling=(1, 1))
    assert isinstance(read(data), np.ndarray)
    at = data.index(struct.pack("<HHI", 530, 3, 2))
    assert read(data[: at + 8] + struct.pack("<HH", 2, 2) + data[at + 12 :]) == "unsupported_format"


def test_a_camera_raw_is_refused_by_its_name() -> None:
    data = write(draw_samples("u", 16, 1, ()), photometric="minisblack", extratags=[(50706, 1, 4, b"\1\4\0\0", True)])
    with pytest.raises(ImageError, match=r"unsupported_format: .*camera raw \(DNG\)"):
        read_upright(data, 16, 10**6)


def test_signed_samples_need_a_declared_white() -> None:
    samples = draw_samples("i", 16, 1, ())
    assert read(write(samples, photometric="minisblack")) == "unsupported_format"
    declared = write(samples, photometric="minisblack", extratags=[(281, 3, 1, 32767, True)])
    assert np.abs(read(declared)[..., 0] - (samples[..., 0] >> 7)).max() <= 1
