"""Groups of photos that are not independent: bursts, copies, one site on one day; and what calibration uses of them.

Photos of a group must stand on one side of every split, else a photo is judged by what learnt its twin. And they are
no n independent photos: a conformal p-value promises something of a flawless photo of a *new* group, where groups are
exchangeable, if each calibration group gives exactly one score, of a photo drawn at random ("subsampling once": Dunn,
Wasserman & Ramdas, "Distribution-free prediction sets for two-layer hierarchical models", JASA 2023, arXiv 1809.07441;
weights in place of the draw are in Lee, Barber & Willett, arXiv 2306.06342). Then n is the number of groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def number_groups(names: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """Numbers N names, (N,): equal names have equal numbers, 0 upwards in the order in which they first occur."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def merge_groups(*groupings: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Merges groupings of the same N photos, each (N,): photos that any of them puts together are together."""
    count = len(groupings[0])
    links = []
    for groups in groupings:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        links.append(np.stack([np.arange(count), first[group]]))
    one, other = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(count, count))
    return number_groups(connected_components(graph, directed=False)[1].tolist())


def count_groups(groups: npt.NDArray[np.int64]) -> int:
    """Counts the different groups of photos, (N,)."""
    return len(np.unique(groups))


def draw_one_of_each(groups: npt.NDArray[np.int64], *, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draws one photo of each group at random.

    Args:
        groups: (N,) the group of each photo.
        rng: decides which.

    Returns:
        Ascending indices of the drawn photos, as many as there are groups.
    """
    order = rng.permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return np.sort(order[first])
