"""The last words of a scoring run: counts, speed, where the table is, the most anomalous photos, alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import count_listed
from jobs.scoring.run_folder import RunFolder
from jobs.tables.boxes import name_part
from jobs.tables.schema import Status
from jobs.tables.text import make_printable
from model.statistics.calibration import MAX_CHOSEN_RATE, describe_promise, format_min_rate

MAX_NAMED = 5
"""Categories that a line names."""
LISTED_Q = 0.1
"""Share of false ones in the list that the summary speaks of; the record has more."""
COLUMNS = ("image_uri", "box", "status", "error", "p_value", "tail_rank", "is_anomaly")
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
        f"{record['listed']} objects listed, {record['already_scored']} known from earlier runs"
        + format_rescored(record.get("rescored", 0)),
        *format_rates(record),
        *format_promises(record),
        *format_alarms(record),
        *format_reasons(reasons),
        *format_most_anomalous(most_anomalous),
        f"table:  {folder.table}",
        f"record: {folder.record}",
    ]
    return "\n".join(lines)


def format_rescored(count: int) -> str:
    """Formats how many rows come from stored scores; nothing where there are none."""
    return f", {count} rated anew from their stored scores, without a fetch" if count else ""


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
    rates = sorted({one["false_alarm_rate"] for one in promises.values()})
    promise = describe_promise(rates[-1], confidence=next(iter(promises.values()))["confidence"])
    within = f", {rates[0]:g} in the category with the most calibration photos" if len(rates) > 1 else ""
    mute = {category: one for category, one in promises.items() if one["threshold"] is None}
    if not mute:
        return [f"promise: {promise}{within}"]
    first = next(iter(mute.values()))
    named = [
        f"{category} has {one['calibration_photos']} calibration photos, "
        f"smallest rate {format_min_rate(one['smallest_rate'])}"
        for category, one in list(mute.items())[:MAX_NAMED]
    ]
    if len(mute) > MAX_NAMED:
        named.append(f"and {len(mute) - MAX_NAMED} more")
    needed = f"{first['false_alarm_rate']:g} needs {first['photos_needed']} calibration photos"
    said = f"no anomaly was possible, is_anomaly is NULL: {'; '.join(named)}; {needed}: recalibrate, or raise the rate"
    return [f"promise: {promise}{within}"] * (len(mute) < len(promises)) + [said]


def format_rates(record: Mapping[str, Any]) -> list[str]:
    """Returns a line on the false-alarm rates that were chosen; none where the request gave one."""
    promises = record.get("promises", {})
    if not promises or record["config"].get("false_alarm_rate") is not None:
        return []
    named = [
        f"{category} {format_min_rate(one['false_alarm_rate'])} ({one['calibration_photos']} calibration photos)"
        for category, one in list(promises.items())[:MAX_NAMED]
    ]
    if len(promises) > MAX_NAMED:
        named.append(f"and {len(promises) - MAX_NAMED} more categories")
    return [
        f"false-alarm rate: the smallest that each calibration supports, at most {MAX_CHOSEN_RATE:.0%}: "
        f"{', '.join(named)}; --false-alarm-rate asks for another"
    ]


def format_alarms(record: Mapping[str, Any]) -> list[str]:
    """Returns lines on what the run's alarms are worth; none where nothing was scored.

    Records of earlier versions do not say it; they give no line.
    """
    found = record.get("false_discoveries", {})
    if not found.get("photos"):
        return []
    lines = [
        f"alarms: {found['alarms']} of {found['photos']} scored photos; if all were flawless, "
        f"{found['expected_false_alarms']:.1f} were to be expected"
    ]
    if found["alarms"]:
        lines.append(
            f"estimated: {format_share(found['true_alarm_share'])} of the alarms are true, "
            f"{format_share(found['defective_share'])} of the photos are not like the calibration photos"
        )
    return [*lines, format_list(next(one for one in found["lists"] if one["q"] == LISTED_Q))]


def format_share(share: Mapping[str, float]) -> str:
    """Formats an estimated share with its interval."""
    return f"{share['value']:.1%} (95 % interval {share['low']:.1%} to {share['high']:.1%})"


def format_list(found: Mapping[str, Any]) -> str:
    """Formats which photos can be trusted together, or what that takes."""
    said = f"with at most {found['q']:.0%} false ones on average (Benjamini-Hochberg)"
    if found["photos"]:
        return f"list {said}: the {found['photos']} photos with p_value <= {found['p_value']:.4g}"
    if found["photos_needed"] is None:
        return f"no list {said}: no photo scores above all calibration photos"
    return f"no list {said}: it needs at least {found['photos_needed']} calibration photos of each category"


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
    """Returns the ``top`` rows of the lowest tail ranks, with COLUMNS; scores of two detectors have no order."""
    # Rows of earlier versions have no tail rank.
    ranks = pc.coalesce(rows["tail_rank"], rows["p_value"])
    table = pa.table([*(rows[name] for name in COLUMNS), ranks], names=[*COLUMNS, "rank"])
    order = [(name, "ascending") for name in ("rank", "p_value", "image_uri")]
    return table.sort_by(order).slice(0, top).select(list(COLUMNS))


def format_reasons(codes: Counter[str]) -> list[str]:
    """Returns a line of reason codes and their counts; no line where there are none."""
    return ["reasons: " + ", ".join(f"{count} {code}" for code, count in codes.most_common())] if codes else []


def format_most_anomalous(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each of the most anomalous photos, with a title above them."""
    if not found:
        return []
    return ["most anomalous (p-value, tail rank, photo; * is an anomaly at its category's false-alarm rate):"] + [
        f"{'*' if row['is_anomaly'] else ' '} {row['p_value']:<8.3g}  {format_rank(row['tail_rank']):<8}  "
        f"{make_printable(name_part(row['image_uri'], row['box']))}"
        for row in found
    ]


def format_rank(rank: float | None) -> str:
    """Formats a tail rank; a dash where an earlier version gave none."""
    return "-" if rank is None else f"{rank:.2g}"


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
    total = count_listed(counts)
    found = [(what, sum(counts.get(status, 0) for status in kind), flag, limit) for what, kind, flag, limit in kinds]
    return [
        f"{count} of {total} rows are {what}: {count / total:.2%}, and {flag} allows {limit:.2%}"
        for what, count, flag, limit in found
        if count >= config.min_alarm_rows and count / total > limit
    ]
