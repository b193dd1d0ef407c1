"""The same scene photographed several times within a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def take_again(
    photo: npt.NDArray[np.uint8], times: int, *, rng: np.random.Generator, shift_px: int = 6
) -> npt.NDArray[np.uint8]:
    """Returns near-duplicates (times, 3, S, S) of a photo uint8 (3, S, S).

    Each is moved by up to ``shift_px`` pixels, brighter or darker by up to 4 %, with noise of 2 grey levels.
    """
    side, taken = photo.shape[-1], []
    wide = np.pad(photo, ((0, 0), (shift_px, shift_px), (shift_px, shift_px)), mode="reflect")
    for _ in range(times):
        down, right = rng.integers(0, 2 * shift_px + 1, 2)
        moved = wide[:, down : down + side, right : right + side]
        noise = rng.normal(0, 2, photo.shape)
        taken.append(np.clip(np.round(moved * rng.uniform(0.96, 1.04) + noise), 0, 255).astype(np.uint8))
    return np.stack(taken)
