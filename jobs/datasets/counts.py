"""How many photos published data sets have, and what a folder lacks of them.

MVTec AD: Bergmann et al., CVPR 2019, table 1. VisA: Zou et al., ECCV 2022, with its own one-class split
(split_csv/1cls.csv). InsPLAD-fault: arXiv 2401.08686, table 1. MTD: the split of DifferNet's authors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jobs.archive.mvtec import FLAWLESS
from jobs.datasets.photo import LabelledPhoto


class PhotoCounts(NamedTuple):
    """Photos of a category: flawless ones to train and to test with, and defective ones."""

    train: int
    test_flawless: int
    test_defective: int


PUBLISHED: Mapping[str, Mapping[str, PhotoCounts]] = {
    "mvtec_ad": {
        "bottle": PhotoCounts(209, 20, 63),
        "cable": PhotoCounts(224, 58, 92),
        "capsule": PhotoCounts(219, 23, 109),
        "carpet": PhotoCounts(280, 28, 89),
        "grid": PhotoCounts(264, 21, 57),
        "hazelnut": PhotoCounts(391, 40, 70),
        "leather": PhotoCounts(245, 32, 92),
        "metal_nut": PhotoCounts(220, 22, 93),
        "pill": PhotoCounts(267, 26, 141),
        "screw": PhotoCounts(320, 41, 119),
        "tile": PhotoCounts(230, 33, 84),
        "toothbrush": PhotoCounts(60, 12, 30),
        "transistor": PhotoCounts(213, 60, 40),
        "wood": PhotoCounts(247, 19, 60),
        "zipper": PhotoCounts(240, 32, 119),
    },
    "visa": {
        "candle": PhotoCounts(900, 100, 100),
        "capsules": PhotoCounts(542, 60, 100),
        "cashew": PhotoCounts(450, 50, 100),
        "chewinggum": PhotoCounts(453, 50, 100),
        "fryum": PhotoCounts(450, 50, 100),
        "macaroni1": PhotoCounts(900, 100, 100),
        "macaroni2": PhotoCounts(900, 100, 100),
        "pcb1": PhotoCounts(904, 100, 100),
        "pcb2": PhotoCounts(901, 100, 100),
        "pcb3": PhotoCounts(905, 101, 100),
        "pcb4": PhotoCounts(904, 101, 100),
        "pipe_fryum": PhotoCounts(450, 50, 100),
    },
    "insplad_fault": {
        "glass-insulator": PhotoCounts(2298, 581, 90),
        "lightning-rod-suspension": PhotoCounts(462, 117, 50),
        "polymer-insulator-upper-shackle": PhotoCounts(935, 235, 102),
        "vari-grip": PhotoCounts(477, 114, 63 + 48),  # bird nests and corrosion
        "yoke-suspension": PhotoCounts(4834, 1207, 49),
    },
    "mtd": {"tile": PhotoCounts(761, 191, 392)},
}
"""Layout -> category -> counts. Of the semiconductor wafers none are published."""


def count_photos(photos: Sequence[LabelledPhoto]) -> dict[str, PhotoCounts]:
    """Counts the photos of each category, which are in the order of their names."""
    parts = Counter((photo.category, photo.split, photo.label == FLAWLESS) for photo in photos)
    return {
        name: PhotoCounts(parts[name, "train", True], parts[name, "test", True], parts[name, "test", False])
        for name in sorted({photo.category for photo in photos})
    }


def list_problems(layout: str, counts: Mapping[str, PhotoCounts]) -> Iterator[str]:
    """Yields a line for each thing that a data set lacks: against its published counts, or to be of any use.

    Names of categories are compared without regard to capitals, spaces, - and _.
    """
    published = PUBLISHED.get(layout)
    if published is None:
        yield from (line for name, found in counts.items() for line in list_gaps(name, found))
        return
    known = {simplify(name): found for name, found in counts.items()}
    for name, asked in published.items():
        found = known.get(simplify(name))
        if found is None:
            yield f"{name}: missing, published with {format_counts(asked)}"
        elif found != asked:
            yield f"{name}: {format_counts(found)}, published with {format_counts(asked)}"
    expected = {simplify(name) for name in published}
    yield from (f"{name}: is none of the published categories" for name in counts if simplify(name) not in expected)


def list_gaps(name: str, found: PhotoCounts) -> Iterator[str]:
    """Yields a line for each part of a category that has no photo."""
    for part, count in found._asdict().items():
        if not count:
            yield f"{name}: no photo in {part.replace('_', ', ')}"


def simplify(name: str) -> str:
    """Returns a category's name without what differs between downloads."""
    return re.sub(r"[\s_-]+", "", name).lower()


def format_counts(counts: PhotoCounts) -> str:
    """Returns counts as the papers' tables have them."""
    return f"{counts.train} to train, {counts.test_flawless} flawless and {counts.test_defective} defective to test"
