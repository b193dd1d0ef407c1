"""The trials as a table: Parquet for analysts, ranked lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from jobs.tables.text import format_table
from tuning.trials.records import TrialRecord

TRIALS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("preset", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("objective", pa.float64()),
        pa.field("auroc", pa.float64()),
        pa.field("held_out_gain", pa.float64()),
        pa.field("shift_agreement", pa.float64()),
        pa.field("seed_agreement", pa.float64()),
        pa.field("synthetic_auroc", pa.float64()),
        pa.field("gflop", pa.float64()),
        pa.field("cpu_s", pa.float64()),
        pa.field("epochs", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("copy_of", pa.int64()),
        pa.field("key", pa.string(), nullable=False),
        pa.field("parameters", pa.string(), nullable=False),
        pa.field("detector", pa.string(), nullable=False),
        pa.field("optimizer", pa.string(), nullable=False),
    ]
)
"""One row per trial. Metrics are those of validation photos (`tuning.trials.judge`); gflop is 1e9 operations per photo
scored, cpu_s and seconds are CPU and wall time; parameters, detector and optimizer are JSON objects."""


def build_trials_table(records: Mapping[int, TrialRecord], *, objective: str) -> pa.Table:
    """Builds TRIALS rows, by number."""
    rows = []
    for record in records.values():
        fields = record.model_dump(include=set(TRIALS.names))
        objects = {name: json.dumps(getattr(record, name)) for name in ("parameters", "detector", "optimizer")}
        rows.append({**fields, **record.metrics, **objects, "objective": record.metrics.get(objective)})
    return pa.Table.from_pylist(rows, schema=TRIALS)


def rank_trials(records: Mapping[int, TrialRecord], *, objective: str) -> list[TrialRecord]:
    """Ranks finished trials from best to worst, then those that were stopped, then those that failed."""
    order = {"done": 0, "stopped": 1, "failed": 2}

    def rank(record: TrialRecord) -> tuple[int, float, int]:
        return order[record.status], -(record.metrics.get(objective) or 0.0), record.number

    return sorted(records.values(), key=rank)


def format_ranking(records: Mapping[int, TrialRecord], *, objective: str, top: int) -> Iterator[str]:
    """Formats the best trials and every preset for a terminal, and the reasons of failures with their counts."""
    rows = rank_trials(records, objective=objective)
    best = [
        format_trial(place, record, objective)
        for place, record in enumerate(rows, start=1)
        if (place <= top or record.preset) and record.status != "failed"
    ]
    yield from format_table(["rank", "trial", "name", objective, "GFLOP", "seconds"], best).splitlines()
    counts = {status: sum(record.status == status for record in rows) for status in ("done", "stopped", "failed")}
    yield ", ".join(f"{count} {status}" for status, count in counts.items())
    yield from (f"  failed {count} x: {reason}" for reason, count in count_failures(rows).items())


def format_trial(place: int, record: TrialRecord, objective: str) -> list[object]:
    """Returns the cells of one trial in the ranking."""
    value, cost = record.metrics.get(objective), record.metrics.get("gflop")
    name = f"{record.name} (stopped)" if record.status == "stopped" else record.name
    shown = None if value is None else f"{value:.4f}"
    return [place, record.number, name, shown, f"{cost or 0:.2f}", f"{record.seconds:.1f}"]


def count_failures(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Counts the trials that failed for each reason, the most frequent first."""
    reasons = [str(record.reason) for record in records if record.status == "failed"]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons), key=lambda one: -reasons.count(one))}
