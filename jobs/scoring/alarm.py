"""What a run that is done raises the alarm for: too large a share of rows without a score."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.scoring.config import ScoreConfig
from jobs.tables.schema import Status


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
