"""The rows of a run in one pass: counts, p-values by category, sites, and the most anomalous photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.explanation.selection import SORTED_BY
from jobs.tables.schema import Status
from model.statistics.calibration import count_ranks

COLUMNS = (
    "image_uri",
    "image_etag",
    "image_key",
    "box",
    "category",
    "site",
    "captured_at",
    "status",
    "error",
    "score",
    "p_value",
    "tail_rank",
    "threshold",
    "is_anomaly",
    "false_alarm_rate",
    "confidence",
    "calibration_photos",
    "detector_id",
    "peak_x",
    "peak_y",
    "peak_box",
)
"""SCORES columns that the page is made of."""


class RunDigest:
    """What the page says of a run, from its rows alone.

    Attributes:
        counts: rows by status.
        reasons: (status, reason code) -> rows.
        categories: name -> its numbers; "" for none.
        sites: name -> its numbers.
        top: the most anomalous photos, COLUMNS rows.
    """

    def __init__(self, *, top: int) -> None:
        """Starts at zero; keeps ``top`` photos."""
        self.counts, self.reasons = Counter[str](), Counter[tuple[str, str]]()
        self.categories: dict[str, GroupNumbers] = {}
        self.sites: dict[str, GroupNumbers] = {}
        self.top: list[dict[str, Any]] = []
        self._kept: pa.Table | None = None
        self._most = top

    def read(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Takes in all rows of the run, batches of COLUMNS."""
        for batch in batches:
            table = pa.Table.from_batches([batch])
            self._count(table)
            for numbers, column in ((self.categories, "category"), (self.sites, "site")):
                add_groups(numbers, table, column)
            self._keep_top(table.filter(pc.equal(table["status"], Status.SCORED)))
        self.top = [] if self._kept is None else self._kept.to_pylist()

    def _count(self, table: pa.Table) -> None:
        codes = pc.fill_null(pc.replace_substring_regex(table["error"], r"(?s):.*", ""), "")
        grouped = pa.table({"status": table["status"], "code": codes}).group_by(["status", "code"])
        for row in grouped.aggregate([([], "count_all")]).to_pylist():
            self.counts[row["status"]] += row["count_all"]
            if row["code"]:
                self.reasons[row["status"], row["code"]] += row["count_all"]

    def _keep_top(self, scored: pa.Table) -> None:
        if not self._most:
            return
        both = scored if self._kept is None else pa.concat_tables([self._kept, scored])
        self._kept = both.take(pc.sort_indices(both, SORTED_BY)[: self._most])  # nulls come last


class GroupNumbers:
    """Numbers of one category or site.

    Attributes:
        scored: photos with a score.
        anomalies: photos reported.
        not_scored: photos without a score.
        reportable: scored photos that could be reported; the others' detector is calibrated on too few for its rate.
        expected_false_alarms: of flawless photos, were all of them flawless.
        calibration_photos: of the detector, where there is one.
        detector_ids: of the rows.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.scored = self.anomalies = self.not_scored = self.reportable = 0
        self.expected_false_alarms = 0.0
        self.calibration_photos: int | None = None
        self.detector_ids: set[str] = set()
        self._p_values: list[npt.NDArray[np.float32]] = []

    def add(self, rows: pa.Table) -> None:
        """Takes in rows of this group."""
        scored = rows.filter(pc.equal(rows["status"], Status.SCORED))
        self.scored += len(scored)
        self.not_scored += len(rows) - len(scored)
        self.anomalies += pc.sum(scored["is_anomaly"]).as_py() or 0
        judged = scored.filter(pc.is_valid(scored["is_anomaly"]))  # none could be reported where the threshold is null
        self.reportable += len(judged)
        self.expected_false_alarms += sum_rates(judged)
        self.calibration_photos = pc.max(scored["calibration_photos"]).as_py() or self.calibration_photos
        self.detector_ids.update(name for name in pc.unique(scored["detector_id"]).to_pylist() if name)
        self._p_values.append(scored["p_value"].drop_null().to_numpy().astype(np.float32))

    @property
    def p_values(self) -> npt.NDArray[np.float32]:
        """All p-values, (m,): 40 MB for ten million photos."""
        return np.concatenate(self._p_values) if self._p_values else np.zeros(0, np.float32)


def sum_rates(rows: pa.Table) -> float:
    """Sums the shares of flawless photos that the thresholds of rows report.

    A threshold is one of n calibration scores, so its share is a multiple of 1 / (n + 1) up to the rate asked for, and
    with a confidence less. Of rows of earlier versions, which do not say n, it is the rate.
    """
    grouped = rows.group_by(["false_alarm_rate", "confidence", "calibration_photos"]).aggregate([([], "count_all")])
    total = 0.0
    for rate, confidence, photos, count in zip(*(column.to_pylist() for column in grouped.columns), strict=True):
        if rate is not None:
            total += count * (count_ranks(photos, rate, confidence=confidence) / (photos + 1) if photos else rate)
    return total


def add_groups(numbers: dict[str, GroupNumbers], table: pa.Table, column: str) -> None:
    """Adds the rows of a table to the numbers of their category or site."""
    for name in pc.unique(table[column]).to_pylist():
        is_mine = pc.is_null(table[column]) if name is None else pc.equal(table[column], name)
        numbers.setdefault(name or "", GroupNumbers()).add(table.filter(is_mine))


def collect_p_values(
    batches: Iterable[pa.RecordBatch], detector_ids: Mapping[str, set[str]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Collects p-values of earlier nights by category, of the same detectors alone.

    Args:
        batches: category, detector_id and p_value of rows.
        detector_ids: category -> the detectors that scored it tonight.

    Returns:
        category -> (m,), in the order of the rows.
    """
    found: dict[str, list[npt.NDArray[np.float32]]] = {}
    for batch in batches:
        table = pa.Table.from_batches([batch]).filter(pc.is_valid(batch.column("p_value")))
        for category in pc.unique(table["category"]).to_pylist():
            wanted = detector_ids.get(category or "", set())
            mine = table.filter(
                pc.and_(pc.equal(table["category"], category), pc.is_in(table["detector_id"], pa.array(sorted(wanted))))
            )
            if len(mine):
                found.setdefault(category, []).append(mine["p_value"].to_numpy().astype(np.float32))
    return {category: np.concatenate(parts) for category, parts in found.items()}
