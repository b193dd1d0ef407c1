"""The photos of a run that are explained, from its rows as they stream by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.explanation.choice import Choice
from jobs.tables.schema import Status

COLUMNS = (
    "image_uri",
    "image_etag",
    "box",
    "category",
    "status",
    "p_value",
    "tail_rank",
    "is_anomaly",
    "detector_id",
    "peak_x",
    "peak_y",
    "peak_box",
)
"""SCORES columns that are needed to choose and to explain."""
SORTED_BY = [("tail_rank", "ascending"), ("p_value", "ascending"), ("image_uri", "ascending")]
"""The tail rank orders photos of all categories also where p-values tie; raw scores of two detectors never do."""


class MostAnomalous:
    """The most anomalous photos of each category, and how many reported ones are not among them."""

    def __init__(self, choice: Choice) -> None:
        """Starts empty."""
        self._choice = choice
        self._kept: dict[str, pa.Table] = {}
        self._anomalies = Counter[str]()

    def read(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Takes in all rows of the run, batches of COLUMNS."""
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            rows = rows.filter(pc.equal(rows["status"], Status.SCORED))
            if self._choice.only_anomalies:
                rows = rows.filter(pc.fill_null(rows["is_anomaly"], False))
            for category in pc.unique(rows["category"]).drop_null().to_pylist():
                self._keep(category, rows.filter(pc.equal(rows["category"], category)))

    def _keep(self, category: str, rows: pa.Table) -> None:
        self._anomalies[category] += pc.sum(rows["is_anomaly"]).as_py() or 0
        both = pa.concat_tables([self._kept[category], rows]) if category in self._kept else rows
        self._kept[category] = both.take(pc.sort_indices(both, SORTED_BY)[: self._choice.per_category])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The photos to explain, COLUMNS rows, category by category and the most anomalous first."""
        return [row for _, kept in sorted(self._kept.items()) for row in kept.to_pylist()]

    @property
    def left_out(self) -> dict[str, int]:
        """Reported photos beyond the bound, by category, where all reported ones were asked for."""
        if not self._choice.only_anomalies:
            return {}
        beyond = {name: count - len(self._kept[name]) for name, count in sorted(self._anomalies.items())}
        return {name: count for name, count in beyond.items() if count > 0}
