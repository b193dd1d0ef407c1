"""Where training finds its photos: decoded, by index, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Photos(Protocol):
    """N decoded photos."""

    def __len__(self) -> int:
        """N."""

    def take(self, photos: Tensor) -> Tensor:
        """The photos of indices (B,), int64 on the CPU, as uint8 (B, 3, S, S) RGB on any device."""


@dataclass(frozen=True)
class InMemory:
    """Photos as one tensor, uint8 (N, 3, S, S), on any device."""

    images: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.images)

    def take(self, photos: Tensor) -> Tensor:
        """See `Photos.take`."""
        return self.images[photos.to(self.images.device)]
