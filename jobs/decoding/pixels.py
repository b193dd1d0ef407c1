"""The pixels of a batch of photos, in a memory file that a decoder fills and Arrow reads in place, without a copy."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa


class PixelFile:
    """Room for N photos, each at its place; within a ``with`` block others may write to its descriptor.

    Attributes:
        descriptor: file descriptor of the memory file, open within the block.
        starts: (N + 1,) int64, first byte of each photo, and the end of the last.
    """

    def __init__(self, shapes: Sequence[tuple[int, int] | None]) -> None:
        """Lays the file out; memory is taken as it is written.

        Args:
            shapes: height and width in pixels of each photo, which will take 3 x H x W bytes; None takes no room.
        """
        self.starts = np.cumsum([0, *(3 * shape[0] * shape[1] if shape else 0 for shape in shapes)], dtype=np.int64)

    def __enter__(self) -> Self:
        """Makes the file."""
        self.descriptor = os.memfd_create("pixels")
        os.ftruncate(self.descriptor, int(self.starts[-1]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the descriptor; memory lives on for as long as an array uses it."""
        os.close(self.descriptor)

    def to_arrow(self, is_there: Sequence[bool]) -> pa.Array:
        """Returns the photos as N large_binary values, null where ``is_there`` is false, whatever lies there."""
        total_bytes = int(self.starts[-1])
        if total_bytes == 0:
            return pa.nulls(len(is_there), pa.large_binary())
        validity = pa.array(is_there, pa.bool_()).buffers()[1]  # one bit a value, as Arrow wants it
        pixels = pa.py_buffer(mmap.mmap(self.descriptor, total_bytes, prot=mmap.PROT_READ))
        return pa.Array.from_buffers(pa.large_binary(), len(is_there), [validity, pa.py_buffer(self.starts), pixels])
