"""The last words of a scoring run: counts, speed, where the table is, the most anomalous photos, alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.scoring.config import ScoreConfig
from jobs.scoring.run_folder import RunFolder
from jobs.tables.schema import Status
from jobs.tables.text import make_printable
from model.statistics.calibration import describe_promise, format_min_rate

MAX_NAMED = 5
"""Categories that a line names."""
COLUMNS = ("image_uri", "status", "error", "score", "p_value", "threshold", "is_anomaly")
"""SCORES columns that the summary looks at."""


def summarize_run(record: Mapping[str, Any], rows: Iterable[pa.RecordBatch], *, folder: RunFolder, top: int) -> str:
    """Returns several lines for a person.

    Args:
        record: the run record.
        rows: COLUMNS of the run's SCORES rows.
        folder: of the run.
        top: how many of the most anomalous photos to list.
    """
    counts = ", ".join(f"{count} {status}" for status, count in record["counts"].items() if count) or "no new photo"
    speed = f" at {record['images_per_s']:.1f} images/s" if record["images_per_s"] else ""
    reasons, most_anomalous = digest_rows(rows, top)
    lines = [
        f"run {record['run_id']}: {counts}{speed}; {format_anomalies(record)}",
        f"{record['listed']} objects listed, {record['already_scored']} scored by earlier runs",
        *format_promises(record),
        *format_reasons(reasons),
        *format_most_anomalous(most_anomalous),
        f"table:  {folder.table}",
        f"record: {folder.record}",
    ]
    return "\n".join(lines)


def format_anomalies(record: Mapping[str, Any]) -> str:
    """Formats the number of anomalies; says so where none was possible."""
    promises = record.get("promises", {}).values()
    if promises and all(one["threshold"] is None for one in promises):
        return "no anomaly was possible: too few calibration photos for the false-alarm rate"
    return f"{record['anomalies']} anomalies"


def format_promises(record: Mapping[str, Any]) -> list[str]:
    """Returns a line on what is promised of flawless photos, and one of the categories where no anomaly was possible.

    Records of earlier versions have no promises; they give no line.
    """
    promises = record.get("promises", {})
    if not promises:
        return []
    first = next(iter(promises.values()))
    promise = describe_promise(first["false_alarm_rate"], confidence=first["confidence"])
    mute = {category: one for category, one in promises.items() if one["threshold"] is None}
    named = [
        f"{category} has {one['calibration_photos']} calibration photos, "
        f"smallest rate {format_min_rate(one['smallest_rate'])}"
        for category, one in list(mute.items())[:MAX_NAMED]
    ]
    if len(mute) > MAX_NAMED:
        named.append(f"and {len(mute) - MAX_NAMED} more")
    needed = f"{first['false_alarm_rate']:g} needs {first['photos_needed']} calibration photos"
    said = f"no anomaly was possible, is_anomaly is NULL: {'; '.join(named)}; {needed}: recalibrate, or raise the rate"
    return [f"promise: {promise}"] * (len(mute) < len(promises)) + [said] * bool(mute)


def digest_rows(rows: Iterable[pa.RecordBatch], top: int) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Returns how often each reason code occurs, and the ``top`` most anomalous rows, in one pass over the run."""
    reasons: Counter[str] = Counter()
    ranked: pa.Table | None = None
    for batch in rows:
        codes = pc.replace_substring_regex(batch.column("error").drop_null(), ":.*", "")
        reasons.update({row["values"]: row["counts"] for row in codes.value_counts().to_pylist()})
        if top:
            best = rank_rows(batch.filter(pc.equal(batch.column("status"), Status.SCORED)), top)
            ranked = best if ranked is None else rank_rows(pa.concat_tables([ranked, best]), top)
    return reasons, ranked.to_pylist() if ranked is not None else []


def rank_rows(rows: pa.RecordBatch | pa.Table, top: int) -> pa.Table:
    """Returns the ``top`` rows of the lowest p-values, with COLUMNS and ``over``."""
    # Ties in p-value are broken by how far the score lies over its own detector's threshold.
    over = pc.divide(rows["score"], pc.coalesce(rows["threshold"], pa.scalar(1.0)))
    kept = [rows[name] for name in COLUMNS]
    table = pa.table([*kept, over], names=[*COLUMNS, "over"])
    return table.sort_by([("p_value", "ascending"), ("over", "descending")]).slice(0, top)


def format_reasons(codes: Counter[str]) -> list[str]:
    """Returns a line of reason codes and their counts; no line where there are none."""
    return ["reasons: " + ", ".join(f"{count} {code}" for code, count in codes.most_common())] if codes else []


def format_most_anomalous(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each of the most anomalous photos, with a title above them."""
    if not found:
        return []
    return ["most anomalous (p-value, score, photo; * is an anomaly at the run's false-alarm rate):"] + [
        f"{'*' if row['is_anomaly'] else ' '} {row['p_value']:.4f}  {row['score']:9.3f}  "
        f"{make_printable(row['image_uri'])}"
        for row in found
    ]


def list_alarms(counts: Mapping[str, int], config: ScoreConfig) -> list[str]:
    """Returns a line for each kind of row whose share of the run is above what its flag allows.

    A kind with fewer rows than ``config.min_alarm_rows`` raises none: one broken file in a night of three new photos is
    a large share and no incident.

    Args:
        counts: rows of the run by status.
        config: the limits, which a rerun of a published run may change.
    """
    kinds = (
        ("unreadable or failed", (Status.UNREADABLE, Status.FAILED), "--max-error-rate", config.max_error_rate),
        ("missing", (Status.MISSING,), "--max-missing-rate", config.max_missing_rate),
        ("no_detector", (Status.NO_DETECTOR,), "--max-no-detector-rate", config.max_no_detector_rate),
    )
    total = sum(counts.values())
    found = [(what, sum(counts.get(status, 0) for status in kind), flag, limit) for what, kind, flag, limit in kinds]
    return [
        f"{count} of {total} rows are {what}: {count / total:.2%}, and {flag} allows {limit:.2%}"
        for what, count, flag, limit in found
        if count >= config.min_alarm_rows and count / total > limit
    ]
