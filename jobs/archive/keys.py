"""What a key says: category, site and time of capture; and what was given as a time and is none."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from jobs.tables.text import make_printable

_GROUPS = ("category", "site", "captured_at")
FIRST_TIME, LAST_TIME = (moment.replace(tzinfo=UTC) for moment in (datetime.min, datetime.max))
"""What Python can hold; times of tables may lie outside."""
_NOTHING_SAID = frozenset({"", "nan", "nat", "null", "none"})


def parse_keys(keys: Sequence[str], pattern: re.Pattern[str]) -> dict[str, list[object]]:
    """Returns the columns category, site and captured_at of keys; None where the pattern has no such group or no match.

    A category or site that is empty is none; neither is one that is not a time, see `LostTimes`.
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


class LostTimes:
    """Counts what a list or a listing gives as a time and is none: the photo counts without, and a line says so.

    Args:
        place: which, as the line names it.
    """

    def __init__(self, place: str) -> None:
        """Has counted nothing."""
        self._place = place
        self._lost: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def count(self, column: str, given: pa.Array, found: pa.Array) -> None:
        """Compares what was given, of any type, with the times that it became."""
        for value in given.filter(pc.and_(pc.is_valid(given), pc.is_null(found))):
            # Only as text: Python holds less than a timestamp may be.
            said = value.as_py() if pa.types.is_string(value.type) else str(value.cast(pa.string()))
            if said.strip().lower() not in _NOTHING_SAID:
                self._lost[column] += 1
                self._examples.setdefault(column, said)

    def count_keys(self, keys: pa.Array, found: pa.Array, *, pattern: re.Pattern[str]) -> None:
        """Compares the keys that a pattern has matched with the times of capture that it gave."""
        if "captured_at" not in pattern.groupindex:
            return
        without = keys.filter(pc.is_null(found)).to_pylist()
        said = [match["captured_at"] if (match := pattern.match(key)) else None for key in without]
        self.count("captured_at", pa.array(said, pa.string()), pa.nulls(len(said)))

    def report(self) -> None:
        """Says on stderr what was counted, a line for each column; nothing where all was well."""
        for column, count in sorted(self._lost.items()):
            example = make_printable(self._examples[column][:100])
            print(
                f"{column} of {count} rows of {make_printable(self._place)} is no time in ISO 8601, such as "
                f"2026-03-16T07:12:00, and is left empty; the first is {example}",
                file=sys.stderr,
                flush=True,
            )
