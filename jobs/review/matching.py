"""Which photos a verdict speaks of: those of its URI, bytes and box."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.review.verdicts import DEFECT, GOOD, UNSURE

_ETAG_OF_CONTENT = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
"""Entity tags of S3 and the like, which copies of an object share. Those of local files name no content."""

_NO_TIME = datetime.min.replace(tzinfo=UTC)


class VerdictIndex:
    """Finds the newest verdict on a photo.

    A verdict on other bytes under the same name says nothing of these. One without an entity tag is about whatever lies
    there, and so is every one on a photo whose own tag nobody knows.
    """

    def __init__(self, verdicts: pa.Table) -> None:
        """Keeps VERDICTS rows."""
        self._found: dict[tuple[str, str | None], list[tuple[datetime, str | None, str]]] = {}
        for row in verdicts.to_pylist():
            # Rows that other programs wrote may lack a time, or a verdict.
            one = (row["at"] or _NO_TIME, row["image_etag"], row["verdict"] or UNSURE)
            self._found.setdefault((row["image_uri"], row["box"]), []).append(one)
        for several in self._found.values():
            several.sort(key=lambda one: one[2])  # of verdicts of one moment the first, as in `select_latest`
            several.sort(key=lambda one: one[0], reverse=True)
        self._boxes: dict[str, list[str | None]] = {}
        for uri, box in self._found:
            self._boxes.setdefault(uri, []).append(box)
        defects = {row["image_etag"] for row in verdicts.to_pylist() if row["verdict"] == DEFECT and row["box"] is None}
        self._etags_of_defects = {etag for etag in defects if etag and _ETAG_OF_CONTENT.fullmatch(etag)}

    def find(self, uri: str, etag: str | None, box: str | None) -> str | None:
        """Returns the verdict on a photo's bytes and box; None where nobody has looked."""
        for _, judged, verdict in self._found.get((uri, box), ()):
            if judged is None or etag is None or judged == etag:
                return verdict
        return None

    def find_each(self, photos: pa.Table | Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Returns the verdict on each of N photos with image_uri, image_etag and box, or None."""
        rows = photos.select(["image_uri", "image_etag", "box"]).to_pylist() if isinstance(photos, pa.Table) else photos
        return [self.find(row["image_uri"], row["image_etag"], row["box"]) for row in rows]

    def find_defects(self, photos: pa.Table) -> list[bool]:
        """Tells which of N photos with image_uri, image_etag and box have a confirmed defect.

        A photo has one where any box of it has, a box where the whole photo has and nobody called the box good, and a
        copy of a defective photo has it too, as far as its entity tag tells.
        """
        return [
            self._is_defective(*row.values()) for row in photos.select(["image_uri", "image_etag", "box"]).to_pylist()
        ]

    def _is_defective(self, uri: str, etag: str | None, box: str | None) -> bool:
        own = self.find(uri, etag, box)
        if own in (DEFECT, GOOD):
            return own == DEFECT
        others = self._boxes.get(uri, []) if box is None else [None]
        return (box is None and etag in self._etags_of_defects) or any(
            self.find(uri, etag, other) == DEFECT for other in others
        )
