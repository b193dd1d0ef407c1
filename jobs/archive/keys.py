"""What a key says: category, site and time of capture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

_GROUPS = ("category", "site", "captured_at")
FIRST_TIME, LAST_TIME = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))
"""What Python can hold; times of tables may lie outside."""


def parse_keys(keys: Sequence[str], pattern: re.Pattern[str]) -> dict[str, list[object]]:
    """Returns the columns category, site and captured_at of keys; None where the pattern has no such group or no match.

    A category or site that is empty is none; neither is one that is not a time.
    """
    matches = [match.groupdict() if (match := pattern.match(key)) else {} for key in keys]
    columns: dict[str, list[object]] = {name: [named.get(name) for named in matches] for name in _GROUPS}
    columns["captured_at"] = [parse_time(named.get("captured_at")) for named in matches]
    return columns


def parse_time(text: str | None) -> datetime | None:
    """Parses an ISO 8601 time, UTC unless it says otherwise; None where the text is no time that exists."""
    try:
        moment = datetime.fromisoformat(text) if text else None
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC) if moment else None
    except (ValueError, OverflowError):  # in UTC it may lie before the first time or after the last one
        return None
