"""Decoding, resizing and rotating photos: what is read, what is refused and why."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from torch import Tensor

from model.image import ImageError, decode_image
from model.network.rotation import list_scoring_angles, rotate, rotate_views
from tests.support import hostile_files
from tests.support.bad_objects import ORIENTATIONS, BadObject, bad_objects, encode, jpeg, photo, with_orientation
from tests.support.places import ROOT, SHARED

SIZE = 48
ARCHIVE = SHARED / "data" / "uav_archive" / "insulator"
SEEDS = [encode(photo(32, 24), image_format) for image_format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")] + [
    encode(photo(32, 24), "JPEG", progressive=True),
    encode(photo(32, 24), "TIFF", compression="tiff_lzw"),
]


def outcome(data: bytes) -> tuple[str, str | None]:
    try:
        image = decode_image(data, size=SIZE)
    except ImageError as error:
        return "unreadable", error.code
    assert image.shape == (3, SIZE, SIZE)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    return "scored", None


def of_lossless(image: Image.Image) -> Tensor:
    return decode_image(encode(image, "PNG"), size=SIZE)


def worst_difference(a: Tensor, b: Tensor) -> int:
    return int((a.int() - b.int()).abs().max())


def noise(count: int, side: int = 64) -> Tensor:
    # 1..255, so that black can only come from outside the picture
    return torch.randint(1, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leaves room for 256 MiB more address space, so that allocating a bomb's pixels raises MemoryError."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + 2**28, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("bad", bad_objects(), ids=lambda bad: bad.key)
def test_every_bad_object_gets_its_status_and_code(bad: BadObject) -> None:
    assert outcome(bad.data) == (bad.status, bad.code)


def test_bad_objects_have_distinct_keys_under_the_given_prefix() -> None:
    keys = [bad.key for bad in bad_objects("tower/7/")]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith("tower/7/") for key in keys)


def test_the_corpus_has_far_more_than_sixty_distinct_objects() -> None:
    distinct = {bad.data for bad in bad_objects()}
    assert len(distinct) >= 120
    assert sum(bad.status == "unreadable" for bad in bad_objects()) >= 60


def test_awkward_keys_are_distinct() -> None:
    keys = [bad.key for bad in bad_objects("tower/7/")]
    assert all(key.startswith("tower/7/") for key in keys)


def test_no_bad_object_warns_or_changes_pillow() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Corrupt EXIF data")  # Pillow's remark; jobs.decoding.decoder_child is silent
        codes = [outcome(bad.data)[1] for bad in bad_objects()]
    assert codes == [bad.code for bad in bad_objects()]
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_photo_above_pillows_own_limit_is_read_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Image.open warns above it and refuses at twice that
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [outcome(encode(photo(), kind)) for kind in ("PNG", "JPEG", "BMP")] == [("scored", None)] * 3


def test_an_error_says_its_code_and_a_sentence() -> None:
    with pytest.raises(ImageError, match=r"^not_an_image: .*an HTML page.*503 Slow Down") as caught:
        decode_image(b"<html><body>503 Slow Down</body></html>", size=SIZE)
    assert str(caught.value) == f"not_an_image: {caught.value.detail}"


def test_an_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(ImageError("empty", "the object has 0 bytes")))
    assert (error.code, error.detail) == ("empty", "the object has 0 bytes")


def test_the_error_of_an_animation_counts_its_frames() -> None:
    data = encode(photo(), "GIF", save_all=True, append_images=[photo().rotate(90), photo().rotate(180)])
    with pytest.raises(ImageError, match="animated: 3 frames"):
        decode_image(data, size=SIZE)


def test_a_camera_raw_preview_is_not_scored_as_the_photo() -> None:
    data = encode(photo(), "TIFF", tiffinfo={254: 1})
    assert outcome(data) == ("unreadable", "unsupported_format")


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg", "bomb.webp", *hostile_files.bombs(photo(), encode)])
def test_a_bomb_is_refused_before_its_pixels_are_allocated(name: str) -> None:
    bomb = next(bad for bad in bad_objects("") if bad.key == name)
    assert outcome(bomb.data) == ("unreadable", bomb.code)


@pytest.mark.slow
def test_no_bomb_takes_memory() -> None:
    check = (
        "import resource; from tests.support import hostile_files; from tests.support.bad_objects import *\n"
        "from model.image import ImageError, decode_image\n"
        "keys = {'bomb.png', 'bomb.jpg', 'bomb.webp', *hostile_files.bombs(photo(), encode)}\n"
        "bombs = [item for item in bad_objects('') if item.key in keys]\n"
        "decode_image(jpeg(), size=48)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for bomb in bombs:\n"
        "    try: decode_image(bomb.data, size=48)\n"
        "    except ImageError: continue\n"
        "print(len(bombs), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    count, grown_kib = map(int, done.stdout.split())
    assert count == 8
    assert grown_kib < 64 * 1024


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_tells_its_size_in_the_header(lossless: bool) -> None:
    data = encode(photo(), "WEBP", lossless=lossless)
    with pytest.raises(ImageError, match="too_many_pixels: 96 x 64 pixels"):
        decode_image(data[:30], size=SIZE, max_pixels=96 * 64 - 1)  # too short for Pillow to open


def test_a_side_too_long_to_resize_is_refused_from_the_header() -> None:
    ihdr = struct.pack(">II", 1, 2**24)
    assert outcome(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + ihdr) == ("unreadable", "too_many_pixels")


def test_a_tile_larger_than_the_limit_is_refused() -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 65520, 323: 65520, 324: 8, 325: 10}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    assert outcome(tiff) == ("unreadable", "too_many_pixels")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_the_pixel_limit_is_inclusive(image_format: str) -> None:
    data = encode(photo(), image_format)
    assert decode_image(data, size=SIZE, max_pixels=96 * 64).shape == (3, SIZE, SIZE)
    with pytest.raises(ImageError, match="too_many_pixels: 96 x 64 pixels"):
        decode_image(data, size=SIZE, max_pixels=96 * 64 - 1)


def test_memory_running_out_is_not_called_a_bad_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(data: bytes, *, min_height: int, min_width: int) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", exhausted)
    with pytest.raises(MemoryError, match="no more"):
        decode_image(jpeg(), size=SIZE)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_exif_orientation_gives_the_upright_photo(orientation: int, image_format: str) -> None:
    turned = decode_image(with_orientation(photo(), orientation, image_format), size=SIZE)
    assert torch.equal(turned, of_lossless(photo()))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_jpeg_is_turned_upright_by_exif(orientation: int) -> None:
    turned = decode_image(with_orientation(photo(), orientation, "JPEG"), size=SIZE)
    # quality 100 without subsampling: at most the rounding of YCbCr, of the DCT and of the resize
    assert worst_difference(turned, of_lossless(photo())) <= 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_exif_orientation_is_ignored(orientation: int) -> None:
    assert torch.equal(decode_image(with_orientation(photo(), orientation, "PNG"), size=SIZE), of_lossless(photo()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Tag data larger than file")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("broken", [b"neither II nor MM", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09\x01\x12"])
def test_broken_exif_does_not_cost_the_photo(broken: bytes, image_format: str) -> None:
    with_exif = encode(photo(), image_format, exif=b"Exif\0\0" + broken)
    assert torch.equal(decode_image(with_exif, size=SIZE), decode_image(encode(photo(), image_format), size=SIZE))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_grey_gives_the_same_value_in_all_channels(image_format: str) -> None:
    grey = decode_image(encode(photo().convert("L"), image_format), size=SIZE)
    assert torch.equal(grey, grey[:1].expand(3, -1, -1))
    assert grey.float().std() > 10


@pytest.mark.parametrize("low_byte", [0, 255])
def test_sixteen_bits_are_scaled_by_their_full_range(low_byte: int) -> None:
    eight = np.asarray(photo().convert("L"))
    wide = Image.fromarray((eight.astype(np.uint16) << 8) | low_byte)
    assert torch.equal(of_lossless(wide), of_lossless(Image.fromarray(eight)))


def test_sixteen_bit_colour_and_grey_are_read_alike() -> None:
    by_key = {bad.key: bad.data for bad in bad_objects("")}
    assert torch.equal(decode_image(by_key["colour_16_bit.png"], size=SIZE), of_lossless(photo()))
    assert torch.equal(decode_image(by_key["grey_16_bit.png"], size=SIZE), of_lossless(photo().convert("L")))
    assert torch.equal(decode_image(by_key["integer_32_bit.tif"], size=SIZE), of_lossless(photo().convert("L")))
    assert torch.equal(decode_image(by_key["float_32_bit.tif"], size=SIZE), of_lossless(photo().convert("L")))


@pytest.mark.parametrize("value", [-0.5, 1.5, float("nan")])
def test_float_samples_without_a_known_white_are_refused(value: float) -> None:
    assert outcome(encode(Image.new("F", (8, 8), value), "TIFF")) == ("unreadable", "unsupported_format")


def test_transparency_is_black_whatever_colour_it_hides() -> None:
    alpha = Image.new("L", photo().size, 0)
    hidden = [Image.merge("RGBA", (*image.split(), alpha)) for image in (photo(), photo().rotate(180))]
    assert [int(of_lossless(image).max()) for image in hidden] == [0, 0]


def test_opaque_alpha_changes_nothing() -> None:
    assert torch.equal(of_lossless(photo().convert("RGBA")), of_lossless(photo()))


def test_a_multi_picture_jpeg_is_its_first_picture() -> None:
    data = encode(photo(), "MPO", quality=92, save_all=True, append_images=[photo().rotate(180)])
    assert torch.equal(decode_image(data, size=SIZE), decode_image(jpeg(), size=SIZE))


def test_a_cmyk_jpeg_shows_the_photo_in_pillows_colours() -> None:
    data = encode(photo().convert("CMYK"), "JPEG", quality=95)
    decoded = decode_image(data, size=SIZE)
    assert torch.equal(decoded, of_lossless(Image.open(io.BytesIO(data)).convert("RGB")))
    # inverted inks would be off by more than 100 on average
    assert (decoded.float() - of_lossless(photo()).float()).abs().mean() < 6


@pytest.mark.parametrize("side", [32, 200])
def test_resizing_agrees_with_pillow_to_one_level(side: int) -> None:
    expected = torch.from_numpy(np.array(photo(96, 64).resize((side, side), Image.Resampling.BILINEAR)))
    assert worst_difference(decode_image(encode(photo(), "PNG"), size=side), expected.permute(2, 0, 1)) <= 1


def test_a_large_jpeg_scaled_in_the_decoder_stays_close_to_the_full_decode() -> None:
    data = jpeg(960, 640)  # 640 >= 6 * 64, so 3:8 of it is decoded
    full = torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)[None].double()
    exact = torch.nn.functional.interpolate(full, size=(64, 64), mode="bilinear", antialias=True)[0]
    difference = (decode_image(data, size=64) - exact).abs()
    # rounding alone is 0.25 / 0.5; the hard drawn edges are the worst case of the other filter
    assert difference.mean() < 0.5
    assert difference.max() < 5


def test_the_same_bytes_give_the_same_bits() -> None:
    assert all(torch.equal(decode_image(data, size=SIZE), decode_image(data, size=SIZE)) for data in SEEDS)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks on broken metadata
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b""] + [seed[:20] for seed in SEEDS]))
def test_arbitrary_bytes_are_scored_or_refused(tail: bytes, head: bytes) -> None:
    assert outcome(head + tail)[0] in ("scored", "unreadable")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(0, 2**16)),
)
@pytest.mark.slow
def test_mutated_files_are_scored_or_refused(seed: bytes, edits: list[tuple[int, int]], cut: int | None) -> None:
    data = bytearray(seed)
    for at, value in edits:
        data[at % len(data)] = value
    assert outcome(bytes(data[: cut % len(data)] if cut is not None else data))[0] in ("scored", "unreadable")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=4, max_size=40), st.sampled_from([b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"]))
def test_hostile_jpeg_metadata_is_scored_or_refused(body: bytes, marker: bytes) -> None:
    segment = marker + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body
    assert outcome(jpeg()[:2] + segment + jpeg()[2:])[0] in ("scored", "unreadable")


def test_scoring_angles_are_even_over_the_circle() -> None:
    assert list_scoring_angles(1) == (0.0,)
    assert list_scoring_angles(8) == (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


def test_no_view_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 view"):
        list_scoring_angles(0)


def test_rotation_by_nothing_is_the_identity() -> None:
    assert torch.equal(rotate(noise(2), torch.tensor([0.0, 360.0])), noise(2))


def test_four_quarter_turns_are_the_identity() -> None:
    turned = noise(1)
    for _ in range(4):
        turned = rotate(turned, torch.tensor([90.0]))
        assert turned.min() > 0
    assert torch.equal(turned, noise(1))


def test_a_quarter_turn_is_counter_clockwise() -> None:
    assert torch.equal(rotate(noise(1), torch.tensor([90.0]))[0, :, -1, 0], noise(1)[0, :, 0, 0])


@settings(max_examples=60, deadline=None)
@given(st.floats(-720, 720, width=32), st.sampled_from([33, 64]))
def test_rotation_agrees_with_pillow_pixel_for_pixel(angle: float, side: int) -> None:
    image = noise(1, side)
    expected = np.array(Image.fromarray(image[0].permute(1, 2, 0).numpy()).rotate(angle))
    # Pillow's fixed point is reproduced, so no pixel may differ; a rounded float index would differ in about 1 of 1000
    assert torch.equal(rotate(image, torch.tensor([angle]))[0], torch.from_numpy(expected).permute(2, 0, 1))


def test_corners_are_black_after_an_eighth_turn() -> None:
    turned = rotate(noise(1), torch.tensor([45.0]))[0]
    assert turned[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
    assert turned[:, 32, 32].min() > 0


def test_views_come_image_by_image() -> None:
    images, angles = noise(3), list_scoring_angles(5)
    expected = [rotate(image[None], torch.tensor([angle], dtype=torch.float64)) for image in images for angle in angles]
    assert torch.equal(rotate_views(images, angles), torch.cat(expected))


def test_rotating_leaves_the_photos_alone() -> None:
    images = noise(2)
    rotate_views(images, list_scoring_angles(4)).zero_()
    assert torch.equal(images, noise(2))


def test_no_image_has_no_views() -> None:
    assert rotate(noise(0), torch.zeros(0)).shape == (0, 3, 64, 64)
    assert rotate_views(noise(0), (0.0, 30.0)).shape == (0, 3, 64, 64)


def test_an_angle_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="one angle per image"):
        rotate(noise(2), torch.zeros(1))


@pytest.mark.skipif(not ARCHIVE.is_dir(), reason="the real photos of shared/data are not on this machine")
def test_real_photos_agree_with_an_exact_resize() -> None:
    for path in sorted(ARCHIVE.glob("*.jpg"))[:4]:
        exact = Image.open(io.BytesIO(path.read_bytes())).convert("RGB").resize((448, 448), Image.Resampling.BILINEAR)
        decoded = decode_image(path.read_bytes(), size=448)
        # both round to 8 bits between the two passes of the filter, in the same order
        assert worst_difference(decoded, torch.from_numpy(np.array(exact)).permute(2, 0, 1)) <= 1
