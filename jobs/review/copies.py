"""Confirmed defects and their copies: photos of other names, or of other stores, whose pixels are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.decoding.photos import COMPARED_PX, fingerprint_photos
from jobs.review.matching import VerdictIndex
from jobs.review.verdicts import DEFECT, GOOD, read_latest_verdicts
from jobs.tables.manifest import make_manifest
from model.pictures.rules import MAX_PIXELS, WHOLE, PixelRules


@dataclass(frozen=True)
class ConfirmedDefects:
    """What is known of the photos that people confirmed as defects.

    Attributes:
        verdicts: all newest verdicts.
        pixel_hashes: of the defects that can be read and have not changed, and of the whole photos around boxes.
        rules: how they became pixels.
    """

    verdicts: VerdictIndex
    pixel_hashes: frozenset[str]
    rules: PixelRules

    def find(self, manifest: pa.Table) -> list[bool]:
        """Tells which of N MANIFEST rows are confirmed defects or copies of one; decodes those that verdicts leave.

        A photo that was itself called good is none, whatever it is a copy of.
        """
        found = np.array(self.verdicts.find_defects(manifest), bool)
        own = np.array([verdict == GOOD for verdict in self.verdicts.find_each(manifest)], bool)
        left = np.flatnonzero(~(found | own))
        if self.pixel_hashes and len(left):
            hashes = hash_photos(manifest.take(pa.array(left)), rules=self.rules)
            found[left] = [one in self.pixel_hashes for one in hashes]
        return [bool(one) for one in found]


def read_confirmed_defects(results: str, *, rules: PixelRules) -> ConfirmedDefects:
    """Reads the verdicts beside results, and hashes the photos that were confirmed as defects.

    Args:
        results: of jobs.score.
        rules: how photos become pixels.

    Raises:
        RequestError: there are no verdicts.
    """
    latest, rules = read_latest_verdicts(results), rules._replace(tiles=WHOLE)
    defects = latest.filter(pc.equal(latest["verdict"], DEFECT)).to_pylist()
    around = [{**row, "box": None} for row in defects if row["box"] is not None]
    hashes = hash_photos(make_manifest([*defects, *around], category=DEFECT), rules=rules)
    if lost := sum(one is None for one in hashes[: len(defects)]):
        print(
            f"{lost} of {len(defects)} confirmed defects have changed or cannot be read: copies of them are known by "
            "their entity tags alone"
        )
    return ConfirmedDefects(VerdictIndex(latest), frozenset(one for one in hashes if one is not None), rules)


def hash_photos(manifest: pa.Table, *, rules: PixelRules) -> list[str | None]:
    """Hashes the decoded pixels of N MANIFEST rows; None where they cannot be read, or have changed since."""
    photos = fingerprint_photos(manifest, size=COMPARED_PX, max_pixels=MAX_PIXELS, rules=rules, with_thumbnails=False)
    hashes: list[str | None] = photos["pixel_hash"].to_pylist()
    return hashes
