"""Photos decoded to one size for training, evaluation and measurements, not row by row as scoring does it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from jobs.decoding.fetch import FetchDecode
from jobs.decoding.fingerprints import FINGERPRINT, MAX_COMPARED_PHOTOS, take_fingerprints
from model.config import DEFAULT_RULES, PixelRules
from model.image import decode_image

COMPARED_PX = 256
"""Side at which photos are decoded to be compared with each other, whatever the detectors' sizes are."""
FETCH_CONCURRENCY = 32
"""Photos fetched at once by one process."""


def make_fetch_decode(
    manifest: pa.Table, *, size: int, max_pixels: int, rules: PixelRules = DEFAULT_RULES
) -> FetchDecode:
    """Returns the stage that decodes the photos of a manifest to one size, whatever their categories.

    Args:
        manifest: MANIFEST rows.
        size: side S in pixels.
        max_pixels: largest photo decoded.
        rules: how photos become pixels.
    """
    categories = manifest["category"].unique().to_pylist()
    return FetchDecode(
        image_sizes=dict.fromkeys(categories, size),
        max_pixels=max_pixels,
        concurrency=FETCH_CONCURRENCY,
        rules=dict.fromkeys(categories, rules),
    )


def decode_rows(
    manifest: pa.Table, *, size: int, max_pixels: int, rules: PixelRules = DEFAULT_RULES
) -> tuple[pa.Table, dict[str, str]]:
    """Fetches and decodes all photos of a manifest in this process, by the stage that scoring has.

    Args:
        manifest: MANIFEST rows; other columns stay.
        size: side S in pixels.
        max_pixels: largest photo decoded.
        rules: how photos become pixels.

    Returns:
        DECODED rows of the readable photos, in order, and URI -> why it could not be decoded of the others.
    """
    rows = make_fetch_decode(manifest, size=size, max_pixels=max_pixels, rules=rules)(manifest)
    lost = rows.filter(pc.is_valid(rows["error"]))
    reasons = dict(zip(lost["image_uri"].to_pylist(), lost["error"].to_pylist(), strict=True))
    return rows.filter(pc.is_null(rows["error"])), reasons


def fingerprint_photos(
    manifest: pa.Table,
    *,
    size: int,
    max_pixels: int,
    rules: PixelRules = DEFAULT_RULES,
    with_thumbnails: bool = True,
) -> pa.Table:
    """Fetches and decodes photos in this process, a few at a time, and keeps their fingerprints alone.

    Args:
        manifest: MANIFEST rows.
        size: side S in pixels.
        max_pixels: largest photo decoded.
        rules: how photos become pixels.
        with_thumbnails: take them too, of at most `MAX_COMPARED_PHOTOS` photos.

    Returns:
        FINGERPRINT rows of all photos, in order; those that cannot be decoded have an error.
    """
    stage = make_fetch_decode(manifest, size=size, max_pixels=max_pixels, rules=rules)
    with_thumbnails = with_thumbnails and len(manifest) <= MAX_COMPARED_PHOTOS
    found = [
        take_fingerprints(
            stage(manifest.slice(first, FETCH_CONCURRENCY)),
            with_thumbnails=with_thumbnails,
            shape=rules.tiles.measure_photo(size),
        )
        for first in range(0, len(manifest), FETCH_CONCURRENCY)
    ]
    return pa.concat_tables(found or [FINGERPRINT.empty_table()])


def decode_images(photos: Iterable[bytes], *, size: int, rules: PixelRules = DEFAULT_RULES) -> Tensor:
    """Decodes N photos that lie in memory, at least one: uint8 (N, 3, H, W) RGB, squares without tiles.

    Raises:
        model.image.ImageError: one of them cannot be decoded.
    """
    return torch.stack([decode_image(data, size=size, **rules._asdict()) for data in photos])
