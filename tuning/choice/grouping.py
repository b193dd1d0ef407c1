"""Which photos of a search belong together, as copies or nearly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.decoding.photos import COMPARED_PX, fingerprint_photos
from model.pictures.rules import MAX_PIXELS, PixelRules


def group_some(
    rows: pa.Table,
    chosen: npt.NDArray[np.int64],
    group: Callable[[pa.Table], npt.NDArray[np.int64]],
    *,
    rules: PixelRules,
) -> npt.NDArray[np.int64]:
    """Groups those photos of MANIFEST rows (N,) that are chosen and can be read; all others are by themselves.

    Args:
        rows: photos.
        chosen: ascending indices.
        group: FINGERPRINT rows to the group of each.
        rules: how photos become pixels.

    Returns:
        (N,) the index of the first photo of each photo's group.
    """
    groups = np.arange(len(rows))
    photos = fingerprint_photos(rows.take(pa.array(chosen)), size=COMPARED_PX, max_pixels=MAX_PIXELS, rules=rules)
    readable = np.flatnonzero(pc.is_null(photos["error"]).to_numpy(zero_copy_only=False))
    if len(readable):
        _, first, found = np.unique(group(photos.take(pa.array(readable))), return_index=True, return_inverse=True)
        groups[chosen[readable]] = chosen[readable][first[found]]
    return groups


def name_by_first(keys: Sequence[str], groups: npt.NDArray[np.int64]) -> list[str]:
    """Returns for each of N keys the first key of its group, in alphabetical order."""
    first: dict[int, str] = {}
    for key, group in sorted(zip(keys, groups.tolist(), strict=True)):
        first.setdefault(group, key)
    return [first[group] for group in groups.tolist()]
