"""Adding what people found on photos: a list of verdicts becomes rows of the table beside the scores."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.archive.keys import parse_time
from jobs.archive.uri_list import PHOTO_URI, normalize_listed, read_columns
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError
from jobs.findings.config import AddVerdictsConfig
from jobs.review.verdicts import WORDS, locate_verdicts, write_verdicts
from jobs.tables.boxes import format_value, is_absent, parse_box
from jobs.tables.schema import VERDICTS
from jobs.tables.text import make_printable

_MAX_NAMED = 10


def add_verdicts(config: AddVerdictsConfig) -> int:
    """Adds the verdicts of a file to the table; rows that are none are named and left out.

    Raises:
        RequestError: the file is no list with image_uri and verdict.
        StorageError: storage refused, or the table is damaged.
    """
    rows, problems, unjudged = read_verdict_list(config.file, by=config.by or getpass.getuser())
    added = write_verdicts(config.results, rows)
    print(f"{added} verdicts added to {locate_verdicts(config.results)}, {len(rows) - added} were there already")
    if unjudged:
        print(f"{unjudged} photos of the list have no verdict yet")
    for problem in problems[:_MAX_NAMED]:
        print(f"left out {problem}", file=sys.stderr)
    if len(problems) > _MAX_NAMED:
        print(f"left out {len(problems) - _MAX_NAMED} more", file=sys.stderr)
    return EXIT_TOO_MANY_UNREADABLE if problems else EXIT_DONE


def read_verdict_list(file: str, *, by: str) -> tuple[pa.Table, list[str], int]:
    """Reads a CSV or Parquet list of verdicts.

    Args:
        file: its URI; columns image_uri and verdict, and any of image_etag, box, by, at.
        by: who looked, for rows that do not say it.

    Returns:
        VERDICTS rows, why each of the other rows is none, and how many photos have no verdict yet.

    Raises:
        RequestError: it is no such list.
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    unjudged = 0
    now = datetime.now(UTC)
    for number, row in enumerate(stream_list(file), start=1):
        if row["image_uri"] and not str(row["verdict"] or "").strip():
            unjudged += 1  # the list of a sample that is not looked through yet
        elif problem := find_problem(row):
            problems.append(f"row {number} of {file}: {problem}")
        else:
            found.append(complete_verdict(row, by=by, at=now))
    return pa.Table.from_pylist(found, schema=VERDICTS), problems, unjudged


def stream_list(file: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a list with the columns of VERDICTS that it has."""
    for batch in read_columns(file, select_verdict_columns):
        yield from batch.to_pylist()


def select_verdict_columns(names: list[str], file: str) -> list[str]:
    """Selects the columns of VERDICTS that a list has. Raises RequestError where one that is needed is not there."""
    if missing := {"image_uri", "verdict"}.difference(names):
        raise RequestError(
            f"{file} has no column {' or '.join(sorted(missing))}: expected image_uri, verdict and any of image_etag, "
            f"box, by, at, got {', '.join(names) or 'nothing'}"
        )
    return [name for name in VERDICTS.names if name in names]


def find_problem(row: Mapping[str, Any]) -> str:
    """Returns what is wrong with a row of a list; empty where it is a verdict."""
    uri, verdict, at = normalize_listed(row["image_uri"]), row["verdict"], row.get("at")
    if not uri or not re.match(PHOTO_URI, uri):
        return f"image_uri must be s3://bucket/key, gs://, az:// or a file, got {make_printable(str(row['image_uri']))}"
    if str(verdict).strip().lower() not in WORDS:
        return f"verdict must be {', '.join(WORDS)}, got {make_printable(str(verdict))}"
    if (box := read_box(row)) is not None:
        try:
            parse_box(box)
        except ValueError:
            return f"box must be x,y,width,height in pixels, got {make_printable(str(row['box']))}"
    if isinstance(at, str) and at and parse_time(at) is None:
        return f"at must be a time in ISO 8601, got {make_printable(at)}"
    return ""


def read_box(row: Mapping[str, Any]) -> str | None:
    """Reads a row's box as archive lists are read, so that a verdict finds its row of results; None where none is."""
    given = row.get("box")
    return None if is_absent(given) else format_value(given)


def complete_verdict(row: Mapping[str, Any], *, by: str, at: datetime) -> dict[str, Any]:
    """Returns a VERDICTS row of a list's row that has no problem."""
    given = row.get("at")
    return {
        "image_uri": normalize_listed(row["image_uri"]),
        "image_etag": row.get("image_etag") or None,
        "box": read_box(row),
        "verdict": row["verdict"].strip().lower(),
        "by": row.get("by") or by,
        "at": (parse_time(given) if isinstance(given, str) else given) or at,
    }
