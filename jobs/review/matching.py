"""Which photos a verdict speaks of: those of its URI, bytes and box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class VerdictIndex:
    """Finds the newest verdict on a photo.

    A verdict on other bytes under the same name says nothing of these. One without an entity tag is about whatever lies
    there, and so is every one on a photo whose own tag nobody knows.
    """

    def __init__(self, verdicts: pa.Table) -> None:
        """Keeps VERDICTS rows."""
        self._found: dict[tuple[str, str | None], list[tuple[datetime, str | None, str]]] = {}
        for row in verdicts.to_pylist():
            one = (row["at"], row["image_etag"], row["verdict"])
            self._found.setdefault((row["image_uri"], row["box"]), []).append(one)
        for several in self._found.values():
            several.sort(key=lambda one: (one[0], one[2]), reverse=True)
        self.uris = pa.array(sorted({uri for uri, _ in self._found}), pa.string())

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

    def select_judged(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns the rows of a batch whose URI some verdict names."""
        return batch.filter(pc.is_in(batch.column("image_uri"), self.uris))
