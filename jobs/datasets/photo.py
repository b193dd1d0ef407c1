"""One labelled photo of a data set, and the names that it may carry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jobs.archive.mvtec import FLAWLESS
from jobs.errors import RequestError
from jobs.tables.text import make_printable


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo with what is known of it.

    Attributes:
        uri: where it is.
        key: its place below the source, or the URI in a list.
        category: one of the data set's.
        split: train, validation or test; empty where the data set has no split yet.
        label: ``good``, or the name of its defect.
    """

    uri: str
    key: str
    category: str
    split: str
    label: str

    def __post_init__(self) -> None:
        """Refuses names that cannot be folders.

        Raises:
            RequestError: it has one.
        """
        for what, name in (("category", self.category), ("label", self.label)):
            if name in {"", ".", ".."} or "/" in name or "\\" in name or not name.isprintable():
                raise RequestError(
                    f"{what} {make_printable(name)!r} of {make_printable(self.uri)} cannot be the name of a folder"
                )


def split_flawless(photos: Iterable[LabelledPhoto], *, test_share: float, seed: int) -> list[LabelledPhoto]:
    """Gives a split to photos that have none: defective ones test, flawless ones train or test by their key's hash.

    Args:
        photos: of any categories.
        test_share: share of each category's flawless photos that tests, in (0, 1), at least one photo.
        seed: another one gives another split; the order of the photos does not matter.
    """
    done, open_by_category = list[LabelledPhoto](), dict[str, list[LabelledPhoto]]()
    for photo in photos:
        if photo.split:
            done.append(photo)
        elif photo.label != FLAWLESS:
            done.append(replace(photo, split="test"))
        else:
            open_by_category.setdefault(photo.category, []).append(photo)
    for some in open_by_category.values():
        some.sort(key=lambda photo: hashlib.sha256(f"{seed} {photo.key}".encode()).digest())
        tests = max(1, round(test_share * len(some)))
        done += [replace(photo, split="test" if rank < tests else "train") for rank, photo in enumerate(some)]
    return sorted(done, key=lambda photo: (photo.category, photo.key))
