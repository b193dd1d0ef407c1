"""Which labelled photos choose, and which are only looked at in the end.

Choosing by photos flatters whoever is chosen on just those photos, so the photos of the final test must have no part
in it. Where the data has a folder ``<category>/validation/``, its photos choose. Else a share of ``test/`` does: each
photo by the hash of its key, so a photo stays where it is when others come or the data moves. Photos of equal pixels
and near-duplicates go where the first of them goes: else the test would know the photos that chose.

**What makes looking early hard.** Trials never get the test photos: these are inside a `SealedTest`, whose ``open``
leaves a mark beside the results that names the winner. Once the mark is there, the search runs no more trials, and
nobody but that winner can open the test again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.archive.exclusion import exclude_photos, make_selection, read_names
from jobs.archive.mvtec import FLAWLESS, SPLITS, list_labelled, locate_flawless, select_split
from jobs.config import is_place
from jobs.decoding.fingerprints import group_fingerprints
from jobs.detectors.lineage import hash_manifest
from jobs.errors import ConflictError, JobError, MissingObjectError, RequestError
from jobs.storage import uris
from jobs.training.groups import GroupRequest, group_as_asked
from model.pictures.rules import DEFAULT_RULES, WHOLE, PixelRules
from tuning.choice.confirmed import use_confirmed_defects
from tuning.choice.grouping import group_some, name_by_first

MIN_TRAINING_PHOTOS = 8
_MARK = "test-opened.json"


class SealedTest:
    """The photos of the final test; who wants them has to open it, which leaves a mark."""

    def __init__(self, manifest: pa.Table) -> None:
        """``manifest``: LABELLED rows of the split test."""
        self.__manifest = manifest
        self.counts = Counter(manifest["label"].to_pylist())
        self.photos_hash = hash_manifest(manifest)

    def open(self, *, results: str, winner: str) -> pa.Table:
        """Opens the test for the final comparison of one winner and returns its rows.

        Args:
            results: folder of the search, where the mark is left.
            winner: key of the configuration that was chosen.

        Raises:
            JobError: it was opened for another winner.
        """
        mark = {"winner": winner, "photos": self.photos_hash, "opened_at": datetime.now(UTC).isoformat()}
        try:
            storage.write(uris.join(results, _MARK), json.dumps(mark, indent=1).encode(), if_absent=True)
        except ConflictError:
            before = read_mark(results) or {}
            if before.get("winner") != winner or before.get("photos") != self.photos_hash:
                raise JobError(
                    f"the test photos were opened on {before.get('opened_at')} for winner {before.get('winner')}: to "
                    "choose again after that would be to choose by them; take new test photos and a new --results"
                ) from None
        return self.__manifest


def read_mark(results: str) -> dict[str, Any] | None:
    """Reads the mark that opening the test left; None while it is sealed."""
    try:
        return dict(json.loads(storage.read(uris.join(results, _MARK))))
    except MissingObjectError:
        return None


@dataclass(frozen=True)
class Split:
    """The photos of a search.

    Attributes:
        train: MANIFEST rows of flawless photos.
        validation: LABELLED rows of the split validation; maybe none.
        test: sealed.
        is_share_of_test: whether validation was a part of ``test/``.
        groups: (N,) the group of each flawless photo, by which they are split.
    """

    train: pa.Table
    validation: pa.Table
    test: SealedTest
    is_share_of_test: bool
    groups: npt.NDArray[np.int64]

    @property
    def validation_counts(self) -> Counter[str]:
        """Validation photos by label."""
        return Counter(self.validation["label"].to_pylist())

    @property
    def defects(self) -> int:
        """Defective validation photos."""
        return sum(count for label, count in self.validation_counts.items() if label != FLAWLESS)

    @property
    def photos_hash(self) -> str:
        """Names training and validation photos."""
        return hash_manifest(pa.concat_tables([self.train, self.validation]))


def split_data(
    data: str,
    category: str,
    *,
    validation_share: float,
    include: Sequence[str] = (),
    exclude: str | None = None,
    group_by: Sequence[str] = (),
    key_pattern: str | None = None,
    rules: PixelRules = DEFAULT_RULES,
    verdicts: str | None = None,
) -> Split:
    """Lists a category, splits its photos, and groups the flawless ones.

    Args:
        data: folder of the categories.
        category: one of them.
        validation_share: of ``test/``, in (0, 1), where there is no ``validation/``.
        include: patterns of the photos to take, see `jobs.archive.selection`; empty takes all.
        exclude: patterns or a list of photos to leave out, see `jobs.archive.exclusion`.
        group_by: what flawless photos of one group have in common, see `jobs.training.groups.GroupRequest`.
        key_pattern: of their keys, for group_by.
        rules: how photos become pixels.
        verdicts: results of jobs.score; the defects that people confirmed there are validation photos, and no share
            of ``test/`` is.

    Raises:
        RequestError: too few flawless training photos, or no defect is confirmed.
        JobError: group_by names groups, and no photo has one.
    """
    folder, rules = uris.join(data, category), rules._replace(tiles=WHOLE)
    rows = list_labelled(data, category=category, selection=make_selection(include, exclude))
    if exclude is not None and is_place(exclude):
        rows = exclude_photos(rows, read_names(exclude), data=data)
    if verdicts is not None:
        rows = use_confirmed_defects(rows, verdicts, category=category, rules=rules)
    splits = rows["split"].to_pylist()
    if splits.count("train") < MIN_TRAINING_PHOTOS:
        raise RequestError(
            f"a search needs at least {MIN_TRAINING_PHOTOS} photos in {folder}/train/good, got {splits.count('train')}"
        )
    is_carved = "validation" not in splits
    if is_carved:
        keys = [uri.removeprefix(folder + "/") for uri in rows["image_uri"].to_pylist()]
        is_test = pc.equal(rows["split"], "test").to_numpy(zero_copy_only=False)
        keys = name_by_first(keys, group_some(rows, np.flatnonzero(is_test), group_fingerprints, rules=rules))
        assigned = [assign_split(one, key, share=validation_share) for one, key in zip(splits, keys, strict=True)]
        rows = rows.set_column(rows.schema.get_field_index("split"), "split", pa.array(assigned, pa.string()))
    train, validation, test = (select_split(rows, name) for name in SPLITS)
    asked = GroupRequest(category, locate_flawless(data, category), group_by, key_pattern)
    groups = group_some(train, np.arange(len(train)), partial(group_as_asked, asked), rules=rules)
    return Split(train, validation, SealedTest(test), is_carved, groups)


def assign_split(split: str, key: str, *, share: float) -> str:
    """Tells where a photo of ``test/`` belongs, by its key alone."""
    if split != "test":
        return split
    return "validation" if int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) < share * 2**32 else "test"
