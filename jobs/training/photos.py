"""The photos of a training: decoded once, kept as blocks in Ray's object store, read by index on any worker.

Ray keeps the blocks in shared memory, moves them to the nodes that ask, and spills to disk what does not fit. Nobody
holds all photos as one array: not the driver, which has references only, and not a worker, which opens few blocks at a
time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from torch import Tensor

from jobs.cluster.datasets import count_scoring_actors, decode_manifest
from jobs.cluster.manifest_blocks import divide_photos
from jobs.config import ScoringResources
from jobs.decoding.fetch import DECODE_BATCH_PHOTOS
from jobs.decoding.fingerprints import FINGERPRINT, take_fingerprints
from jobs.decoding.photos import make_fetch_decode
from model.pictures.rules import DEFAULT_RULES, WHOLE, PixelRules, Tiles

SAMPLE_PHOTOS = 16
"""Photos that are looked at for their contrast, so that little of a large set has to travel."""
MAX_OPEN_BLOCKS = 32
"""Blocks that a process keeps open, 19 MB each at 448 px: Ray can neither move nor spill what is open."""


@dataclass
class BlockPhotos:
    """N decoded photos in blocks of Ray's object store; implements `model.training.photos.Photos`.

    It pickles as references.

    Attributes:
        blocks: references to DECODED tables; whoever made them must live as long as they are read.
        places: (N, 2) int64, the block and the row in it of each photo.
        size: side S in pixels, of a tile where photos are cut into tiles.
        groups: (N,) the group of each photo; None: each by itself.
        tiles: that each photo will be cut into.
        open_blocks: pixels of the blocks that this process has open, the one used last at the end.
    """

    blocks: Sequence[Any]
    places: npt.NDArray[np.int64]
    size: int
    groups: npt.NDArray[np.int64] | None = None
    tiles: Tiles = WHOLE
    open_blocks: OrderedDict[int, pa.ChunkedArray] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what travels to another process: no open block does."""
        return {**self.__dict__, "open_blocks": OrderedDict()}

    def __len__(self) -> int:
        """Returns N."""
        return len(self.places)

    def take(self, photos: Tensor) -> Tensor:
        """Returns the photos of indices (B,), int64 on the CPU, as uint8 (B, 3, H, W) RGB on the CPU."""
        taken = np.empty((len(photos), 3, *self.tiles.measure_photo(self.size)), np.uint8)
        asked = self.places[photos.numpy()]
        # Block by block, so that a pass over more blocks than may be open opens each of them once.
        for position in np.argsort(asked[:, 0], kind="stable"):
            block, row = asked[position]
            pixels = self.open(int(block))[int(row)].as_buffer()
            taken[position] = np.frombuffer(pixels, np.uint8).reshape(taken.shape[1:])
        return torch.from_numpy(taken)

    def list_blocks(self) -> npt.NDArray[np.int64]:
        """Lists the block of each photo, (N,)."""
        return self.places[:, 0]

    def count_bytes(self) -> int:
        """Counts the bytes of all photos."""
        height, width = self.tiles.measure_photo(self.size)
        return len(self) * 3 * height * width

    def subset(self, photos: npt.NDArray[np.int64]) -> BlockPhotos:
        """Returns the photos of indices (M,), in that order, over the same blocks."""
        groups = None if self.groups is None else self.groups[photos]
        return BlockPhotos(self.blocks, self.places[photos], self.size, groups, self.tiles)

    def open(self, block: int) -> pa.ChunkedArray:
        """Returns the pixels of a block; closes the one that was not used for longest if `MAX_OPEN_BLOCKS` are open."""
        if block not in self.open_blocks:
            if len(self.open_blocks) == MAX_OPEN_BLOCKS:
                self.open_blocks.popitem(last=False)
            self.open_blocks[block] = ray.get(self.blocks[block])["pixels"]
        self.open_blocks.move_to_end(block)
        return self.open_blocks[block]


@dataclass(frozen=True)
class DecodedPhotos:
    """What decoding a manifest came to.

    Attributes:
        photos: the readable ones, in the manifest's order.
        readable: their MANIFEST rows.
        left_out: uri and reason of each unreadable one.
        fingerprints: FINGERPRINT rows of the readable ones.
    """

    photos: BlockPhotos
    readable: pa.Table
    left_out: Sequence[tuple[str, str]]
    fingerprints: pa.Table = field(default_factory=FINGERPRINT.empty_table)


def decode_photos(
    manifest: pa.Table,
    *,
    size: int,
    max_pixels: int,
    with_thumbnails: bool = False,
    rules: PixelRules = DEFAULT_RULES,
) -> DecodedPhotos:
    """Fetches and decodes photos into Ray's object store, by the same stage as scoring.

    Args:
        manifest: MANIFEST rows of one category, ``image_id`` the row number.
        size: side S in pixels of the detector's input.
        max_pixels: largest photo decoded.
        with_thumbnails: whether the fingerprints have them, to look for near-duplicates.
        rules: how photos become pixels.

    Raises:
        ray.exceptions.RayError: the cluster failed.
    """
    fetch_decode = make_fetch_decode(manifest, size=size, max_pixels=max_pixels, rules=rules)
    rows = ray.data.from_arrow(divide_photos(manifest, DECODE_BATCH_PHOTOS))
    # As many as scoring would take: each process takes seconds to import torch, more of them only wait for a core.
    tasks = count_scoring_actors(ScoringResources())
    blocks = decode_manifest(rows, fetch_decode.__call__, tasks=tasks).to_arrow_refs()
    outcomes: list[pa.Table] = []
    for first in range(0, len(blocks), tasks):
        # Where the blocks lie, not here: the driver's node need not have them for the driver to know what is in them.
        some = blocks[first : first + tasks]
        shape = rules.tiles.measure_photo(size)
        outcomes += ray.get(
            [_FINGERPRINTS.remote(block, with_thumbnails=with_thumbnails, shape=shape) for block in some]
        )
    return arrange_photos(manifest, blocks, outcomes, size=size, tiles=rules.tiles)


def sample_photos(photos: BlockPhotos) -> Tensor:
    """Takes up to `SAMPLE_PHOTOS` photos, evenly spaced: uint8 (n, 3, H, W)."""
    chosen = np.linspace(0, len(photos) - 1, num=min(len(photos), SAMPLE_PHOTOS), dtype=np.int64)
    return photos.subset(chosen).take(torch.arange(len(chosen)))


_task: Any = ray.remote(num_cpus=0)
_FINGERPRINTS: Any = _task(take_fingerprints)


def arrange_photos(
    manifest: pa.Table, blocks: Sequence[Any], outcomes: Sequence[pa.Table], *, size: int, tiles: Tiles
) -> DecodedPhotos:
    """Puts what the blocks hold, which come in any order, into the manifest's order."""
    places = np.array([(block, row) for block, rows in enumerate(outcomes) for row in range(len(rows))], np.int64)
    listed = pa.concat_tables(outcomes)
    order = np.argsort(listed["image_id"].to_numpy(), kind="stable")
    listed = listed.take(pa.array(order))
    is_readable = pc.is_null(listed["error"])
    unreadable = listed.filter(pc.invert(is_readable))
    in_order = places.reshape(-1, 2)[order]
    return DecodedPhotos(
        photos=BlockPhotos(blocks, in_order[is_readable.to_numpy(zero_copy_only=False)], size, tiles=tiles),
        readable=manifest.filter(is_readable),
        fingerprints=listed.filter(is_readable),
        left_out=list(zip(unreadable["image_uri"].to_pylist(), unreadable["error"].to_pylist(), strict=True)),
    )
