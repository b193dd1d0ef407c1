"""What a run came to, counted while its rows stream by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.known import stream_rows

_AFTER_CODE = r":.*"
TALLIED = ["category", "status", "error", "is_anomaly", "p_value"]
"""SCORES columns that a tally looks at."""


class RunTally:
    """Sums over SCORES rows.

    Attributes:
        counts: rows by status.
        errors: rows that have an error, by its reason code.
        anomalies: rows flagged.
        by_category: category (empty for none) -> rows by status, and ``anomalies``.
        p_values: category -> p-value -> its photos; a calibration of n photos gives at most n + 1 of them.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.counts, self.errors = Counter[str](), Counter[str]()
        self.anomalies = 0
        self.by_category: dict[str, Counter[str]] = {}
        self.p_values: dict[str, Counter[float]] = {}

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Passes the batches on as they are and counts their rows."""
        for batch in batches:
            self._add(batch)
            yield batch

    def _add(self, batch: pa.RecordBatch) -> None:
        table = pa.Table.from_batches([batch]).select(TALLIED)
        grouped = table.group_by(["category", "status"]).aggregate([([], "count_all"), ("is_anomaly", "sum")])
        for row in grouped.to_pylist():
            count, anomalies = row["count_all"], row["is_anomaly_sum"] or 0
            self.counts[row["status"]] += count
            self.anomalies += anomalies
            mine = self.by_category.setdefault(row["category"] or "", Counter())
            mine.update({row["status"]: count, "anomalies": anomalies})
        ranked = table.filter(pc.is_valid(table["p_value"])).group_by(["category", "p_value"])
        for row in ranked.aggregate([([], "count_all")]).to_pylist():
            self.p_values.setdefault(row["category"] or "", Counter())[row["p_value"]] += row["count_all"]
        codes = pc.value_counts(pc.replace_substring_regex(table["error"].drop_null(), _AFTER_CODE, ""))
        self.errors.update({row["values"]: row["counts"] for row in codes.to_pylist()})


def tally_run(results: str, run_id: str) -> RunTally:
    """Counts the rows that one run has in the result table, of all its tries."""
    tally = RunTally()
    for _ in tally.watch(stream_rows(results, TALLIED, run_id=run_id)):
        pass
    return tally
