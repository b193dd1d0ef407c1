"""The photos of a training: decoded, by index, wherever they are kept, and how some of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.config import DetectorConfig
from model.network.seeding import Stream, create_stream
from model.pictures.rules import Tiles
from model.statistics.groups import count_groups, number_groups
from model.tiling import cut_tiles

MIXED_BLOCKS = 8
"""Blocks whose photos are mixed at a time by a shuffle of blocks."""
MAX_MIXED_BYTES = 2 * 10**9
"""Decoded photos that are mixed as a whole where nothing is asked for; more may not fit in a machine's memory."""


class Photos(Protocol):
    """N decoded photos."""

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """The group of each photo, (N,), see `model.statistics.groups`; None: each photo by itself."""

    def __len__(self) -> int:
        """Returns N."""

    def take(self, photos: Tensor) -> Tensor:
        """Returns the photos of indices (B,), int64 on the CPU, as uint8 (B, 3, H, W) RGB on any device."""


@dataclass(frozen=True)
class InMemory:
    """Photos as one tensor, uint8 (N, 3, H, W), on any device, and the group of each."""

    images: Tensor
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Returns N."""
        return len(self.images)

    def take(self, photos: Tensor) -> Tensor:
        """Returns the photos of indices (B,), see `Photos.take`."""
        return self.images[photos.to(self.images.device)]


@runtime_checkable
class BlockedPhotos(Photos, Protocol):
    """Photos that lie in blocks, of which few can be open at a time."""

    def list_blocks(self) -> npt.NDArray[np.int64]:
        """Lists the block of each photo, (N,)."""

    def count_bytes(self) -> int:
        """Counts the bytes of all photos."""


@dataclass(frozen=True)
class TiledPhotos:
    """The N * T tiles of N photos, photo by photo, each a photo of its own to a training; implements `Photos`.

    The tiles of a photo are of its group, so no split parts them.
    """

    whole: Photos
    tiles: Tiles
    side: int

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Returns the group of each tile, (N * T,)."""
        groups = np.arange(len(self.whole)) if self.whole.groups is None else self.whole.groups
        return np.repeat(groups, self.tiles.total)

    def __len__(self) -> int:
        """Returns N * T."""
        return len(self.whole) * self.tiles.total

    def take(self, photos: Tensor) -> Tensor:
        """Returns the tiles of indices (B,), see `Photos.take`; each photo is taken once."""
        wanted, place = torch.unique(photos // self.tiles.total, return_inverse=True)
        cut = cut_tiles(self.whole.take(wanted), self.tiles, side=self.side)
        return cut[(place * self.tiles.total + photos % self.tiles.total).to(cut.device)]


@dataclass(frozen=True)
class BlockedTiles(TiledPhotos):
    """Tiles of photos that lie in blocks."""

    whole: BlockedPhotos

    def list_blocks(self) -> npt.NDArray[np.int64]:
        """Lists the block of each tile, (N * T,)."""
        return np.repeat(self.whole.list_blocks(), self.tiles.total)

    def count_bytes(self) -> int:
        """Counts the bytes of all photos."""
        return self.whole.count_bytes()


def tile_photos(photos: Photos, config: DetectorConfig) -> Photos:
    """Returns the tiles that a detector's network sees of photos; the photos themselves if it has none, or they are."""
    tiles = config.tile_grid
    if tiles.total == 1 or isinstance(photos, TiledPhotos):
        return photos
    if isinstance(photos, BlockedPhotos):
        return BlockedTiles(photos, tiles, config.image_size)
    return TiledPhotos(photos, tiles, config.image_size)


def draw_order(rng: np.random.Generator, photos: Photos, *, shuffle: Literal["auto", "photos", "blocks"]) -> Tensor:
    """Draws the order (N,) in which an epoch takes its photos.

    ``photos`` is a random order of all. ``blocks`` takes the blocks in random order, `MIXED_BLOCKS` at a time, and
    mixes the photos of those: each block is opened once, where a random photo nearly always wants another one.
    Photos that do not lie in blocks are mixed as a whole. ``auto`` decides by the size of the set alone, not by the
    machine, so that a training is the same everywhere.
    """
    if not isinstance(photos, BlockedPhotos) or shuffle == "photos":
        return torch.from_numpy(rng.permutation(len(photos)))
    if shuffle == "auto" and photos.count_bytes() <= MAX_MIXED_BYTES:
        return torch.from_numpy(rng.permutation(len(photos)))
    blocks = photos.list_blocks()
    rank_of_block = rng.permutation(int(blocks.max()) + 1) // MIXED_BLOCKS
    mixed = rng.permutation(len(photos))
    return torch.from_numpy(mixed[np.argsort(rank_of_block[blocks[mixed]], kind="stable")])


def split_calibration(
    count: int, *, fraction: float, seed: int, groups: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Splits ``count`` flawless photos at random into those that train and those that calibrate, group by group.

    Args:
        count: number of photos, at least 2.
        fraction: share of the groups that calibrates, in (0, 1), rounded to whole groups; one stays on each side.
        seed: the same seed gives the same split.
        groups: (count,) the group of each photo, whose photos stay on one side; None: each photo by itself.

    Returns:
        Ascending training indices and ascending calibration indices, disjoint, together 0..count - 1.

    Raises:
        ValueError: fewer than two groups, or a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the calibration fraction must lie between 0 and 1, both excluded, got {fraction}")
    numbers = number_groups(range(count) if groups is None else groups.tolist())
    different = count_groups(numbers)
    if different < 2:
        raise ValueError(
            f"training and calibration need at least 2 flawless photos of different groups, got {different} of "
            f"{count} photos"
        )
    held_out = min(max(round(different * fraction), 1), different - 1)
    order = create_stream(seed, Stream.CALIBRATION).permutation(different)
    is_held_out = np.isin(numbers, order[:held_out])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
