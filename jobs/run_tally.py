"""What a run came to, counted while its rows stream by: for its record, from which a report can be made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

_CODE = r":.*"


class RunTally:
    """Sums over SCORES rows.

    Attributes:
        counts: rows by status.
        errors: rows that have an error, by its reason code.
        anomalies: rows flagged.
        by_category: category (empty for none) -> rows by status, and ``anomalies``.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.counts, self.errors = Counter[str](), Counter[str]()
        self.anomalies = 0
        self.by_category: dict[str, Counter[str]] = {}

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches as they are, counted as they pass."""
        for batch in batches:
            self._add(batch)
            yield batch

    def _add(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch]).select(["category", "status", "error", "is_anomaly"])
        grouped = table.group_by(["category", "status"]).aggregate([([], "count_all"), ("is_anomaly", "sum")])
        for row in grouped.to_pylist():
            count, anomalies = row["count_all"], row["is_anomaly_sum"] or 0
            self.counts[row["status"]] += count
            self.anomalies += anomalies
            mine = self.by_category.setdefault(row["category"] or "", Counter())
            mine.update({row["status"]: count, "anomalies": anomalies})
        codes = pc.value_counts(pc.replace_substring_regex(table["error"].drop_null(), _CODE, ""))
        self.errors.update({row["values"]: row["counts"] for row in codes.to_pylist()})
