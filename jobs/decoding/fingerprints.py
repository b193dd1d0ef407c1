"""What tells two decoded photos apart or makes them one: a hash of the pixels, and a thumbnail for near-duplicates.

Both are taken from the pixels at the network's size, where they were decoded: names, entity tags and files may differ.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.near_duplicates import group_near_duplicates
from model.statistics.groups import merge_groups, number_groups
from model.thumbnails import THUMBNAIL_SIDE, make_thumbnail

MAX_COMPARED_PHOTOS = 50_000
"""Largest set that near-duplicates are looked for in: 0.4 GB of thumbnails, and each is compared with each."""
FINGERPRINT = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("image_uri", pa.string()),
        pa.field("error", pa.string()),
        pa.field("pixel_hash", pa.string()),
        pa.field("thumbnail", pa.binary()),
    ]
)
"""Of one photo of DECODED: 16 hex digits, and float16 (64, 64); both null where it could not be decoded."""


def hash_pixels(pixels: pa.Buffer) -> str:
    """Hashes decoded pixels, 16 hex digits of BLAKE2b: equal photos have equal hashes, whatever their names."""
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()


def take_fingerprints(decoded: pa.Table, *, with_thumbnails: bool, shape: tuple[int, int] | None = None) -> pa.Table:
    """Returns FINGERPRINT rows of DECODED rows, in their order; without thumbnails that column is null.

    Args:
        decoded: DECODED rows.
        with_thumbnails: whether they are taken.
        shape: height and width in pixels of the photos; None for squares.
    """
    hashes: list[str | None] = []
    thumbnails: list[bytes | None] = []
    for photo in decoded["pixels"]:
        pixels = photo.as_buffer()
        hashes.append(None if pixels is None else hash_pixels(pixels))
        thumbnails.append(_shrink(pixels, shape) if with_thumbnails and pixels is not None else None)
    columns = [decoded[name] for name in ("image_id", "image_uri", "error")]
    return pa.table([*columns, pa.array(hashes, pa.string()), pa.array(thumbnails, pa.binary())], schema=FINGERPRINT)


def _shrink(pixels: pa.Buffer, shape: tuple[int, int] | None) -> bytes:
    values = np.frombuffer(pixels, np.uint8)
    side = round((len(values) / 3) ** 0.5)
    return make_thumbnail(values.reshape(3, *(shape or (side, side)))).tobytes()


def group_fingerprints(fingerprints: pa.Table, *, named: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Groups photos that are not independent of each other, see `model.statistics.groups`.

    Args:
        fingerprints: N FINGERPRINT rows of photos that were decoded.
        named: (N,) groups that somebody named; None looks for near-duplicates, if there are thumbnails.

    Returns:
        (N,) a number for each photo's group. Photos of equal pixels, and boxes of one photo, are together either way.
    """
    hashes, uris = (number_groups(fingerprints[name].to_pylist()) for name in ("pixel_hash", "image_uri"))
    copies = merge_groups(hashes, uris)
    if named is not None:
        return merge_groups(copies, named)
    if fingerprints["thumbnail"].null_count:
        return copies
    thumbnails = np.empty((len(fingerprints), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.float16)
    for number, thumbnail in enumerate(fingerprints["thumbnail"]):
        thumbnails[number] = np.frombuffer(thumbnail.as_buffer(), np.float16).reshape(thumbnails.shape[1:])
    return merge_groups(copies, group_near_duplicates(thumbnails))
