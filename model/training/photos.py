"""The photos of a training: decoded, by index, wherever they are kept, and how some of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from model.network.seeding import Stream, create_stream


class Photos(Protocol):
    """N decoded photos."""

    def __len__(self) -> int:
        """Returns N."""

    def take(self, photos: Tensor) -> Tensor:
        """Returns the photos of indices (B,), int64 on the CPU, as uint8 (B, 3, S, S) RGB on any device."""


@dataclass(frozen=True)
class InMemory:
    """Photos as one tensor, uint8 (N, 3, S, S), on any device."""

    images: Tensor

    def __len__(self) -> int:
        """Returns N."""
        return len(self.images)

    def take(self, photos: Tensor) -> Tensor:
        """Returns the photos of indices (B,), see `Photos.take`."""
        return self.images[photos.to(self.images.device)]


def split_calibration(count: int, *, fraction: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Splits ``count`` flawless photos at random into those that train and those that calibrate.

    Args:
        count: number of photos, at least 2.
        fraction: share that calibrates, in (0, 1), rounded to whole photos and kept within 1..count - 1.
        seed: the same seed gives the same split.

    Returns:
        Ascending training indices and ascending calibration indices, disjoint, together 0..count - 1.

    Raises:
        ValueError: fewer than two photos, or a fraction outside (0, 1).
    """
    if count < 2:
        raise ValueError(f"training and calibration need at least 2 flawless photos, got {count}")
    if not 0 < fraction < 1:
        raise ValueError(f"the calibration fraction must lie between 0 and 1, both excluded, got {fraction}")
    held_out = min(max(round(count * fraction), 1), count - 1)
    order = create_stream(seed, Stream.CALIBRATION).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
