"""What each method of a comparison came to and what it cost, as one table to query."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

METHODS = pa.schema(
    [
        ("category", pa.string()),
        ("variant", pa.string()),
        ("seed", pa.int64()),
        ("auroc", pa.float64()),
        ("aupr", pa.float64()),
        ("recall_at_5_percent", pa.float64()),
        ("flawless", pa.int64()),
        ("defective", pa.int64()),
        ("train_s", pa.float64()),
        ("score_s", pa.float64()),
        ("parameters", pa.int64()),
        ("peak_memory_bytes", pa.int64()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
        ("reason", pa.string()),
    ]
)
"""One row a method, category and seed; seconds are wall time of one CPU's task, versions are JSON."""


def build_method_rows(metrics: pa.Table, outcomes: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Builds METHODS rows: what each method came to on each category with each seed, and what it cost.

    Args:
        metrics: METRICS rows.
        outcomes: of the same units.
    """
    measured = {(row["category"], row["variant"], row["seed"]): row for row in metrics.to_pylist()}
    found = []
    for one in outcomes:
        row = measured[one["category"], one["variant"], one["seed"]]
        figures = {name: row[name] for name in METHODS.names if name in row}
        versions = json.dumps(one["versions"], sort_keys=True)
        found.append({**figures, **one["cost"], "git_commit": one["git_commit"], "versions": versions})
    return pa.Table.from_pylist(found, schema=METHODS)
