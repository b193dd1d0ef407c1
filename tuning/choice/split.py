"""Which labelled photos choose, and which are only looked at in the end.

Choosing by photos flatters whoever is chosen on just those photos, so the photos of the final test must have no part
in it. Where the data has a folder ``<category>/validation/``, its photos choose. Else a share of ``test/`` does: each
photo by the hash of its key, so a photo stays where it is when others come or the data moves.

**What makes looking early hard.** Trials never get the test photos: these are inside a `SealedTest`, whose ``open``
leaves a mark beside the results that names the winner. Once the mark is there, the search runs no more trials, and
nobody but that winner can open the test again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.detectors.lineage import hash_manifest
from jobs.errors import ConflictError, JobError, MissingObjectError, RequestError
from jobs.evaluation.metrics import FLAWLESS
from jobs.storage import uris

_LABELLED = r"(?P<category>)(?P<site>train/good|(?:validation|test)/[^/]+)/"
MIN_TRAINING_PHOTOS = 8
_MARK = "test-opened.json"


class SealedTest:
    """The photos of the final test; who wants them has to open it, which leaves a mark."""

    def __init__(self, manifest: pa.Table) -> None:
        """``manifest``: MANIFEST rows whose site is ``test/<label>``."""
        self.__manifest = manifest
        self.counts = Counter(site.split("/")[1] for site in manifest["site"].to_pylist())
        self.photos_hash = hash_manifest(manifest)

    def open(self, *, results: str, winner: str) -> pa.Table:
        """The MANIFEST rows, for the final comparison of one winner.

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
    """The mark that opening the test left; None while it is sealed."""
    try:
        return dict(json.loads(storage.read(uris.join(results, _MARK))))
    except MissingObjectError:
        return None


@dataclass(frozen=True)
class Split:
    """The photos of a search.

    Attributes:
        train: MANIFEST rows of flawless photos.
        validation: MANIFEST rows whose site is ``validation/<label>``; maybe none.
        test: sealed.
        is_carved: whether validation was a part of ``test/``.
    """

    train: pa.Table
    validation: pa.Table
    test: SealedTest
    is_share_of_test: bool

    @property
    def validation_counts(self) -> Counter[str]:
        """Validation photos by label."""
        return Counter(site.split("/")[1] for site in self.validation["site"].to_pylist())

    @property
    def defects(self) -> int:
        """Defective validation photos."""
        return sum(count for label, count in self.validation_counts.items() if label != FLAWLESS)

    @property
    def photos_hash(self) -> str:
        """Names training and validation photos."""
        return hash_manifest(pa.concat_tables([self.train, self.validation]))


def split_data(data: str, category: str, *, validation_share: float) -> Split:
    """Lists a category and splits its photos.

    Args:
        data: folder of the categories.
        category: one of them.
        validation_share: of ``test/``, in (0, 1), where there is no ``validation/``.

    Raises:
        RequestError: too few flawless training photos.
    """
    folder = uris.join(data, category)
    rows = list_archive(folder, key_pattern=_LABELLED)
    parts = [str(site).split("/")[0] for site in rows["site"].to_pylist()]
    if parts.count("train") < MIN_TRAINING_PHOTOS:
        raise RequestError(
            f"a search needs at least {MIN_TRAINING_PHOTOS} photos in {folder}/train/good, got {parts.count('train')}"
        )
    is_carved = "validation" not in parts
    if is_carved:
        keys = [uri.removeprefix(folder + "/") for uri in rows["image_uri"].to_pylist()]
        parts = [assign_part(part, key, share=validation_share) for part, key in zip(parts, keys, strict=True)]
    train, validation, test = (
        rows.filter(pa.array([part == name for part in parts])) for name in ("train", "validation", "test")
    )
    return Split(train, label_as_validation(validation), SealedTest(test), is_carved)


def assign_part(part: str, key: str, *, share: float) -> str:
    """Where a photo of ``test/`` belongs, by its key alone."""
    if part != "test":
        return part
    return "validation" if int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) < share * 2**32 else "test"


def label_as_validation(rows: pa.Table) -> pa.Table:
    """Renames the part of every site from ``test`` to ``validation``."""
    sites = pc.replace_substring_regex(rows["site"], "^test/", "validation/")
    return rows.set_column(rows.schema.get_field_index("site"), rows.schema.field("site"), sites)
