"""Adding what people found on photos: a list of verdicts becomes rows of the table beside the scores."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.keys import parse_time
from jobs.archive.uri_list import (
    BOX_COLUMNS,
    OLDER_NAMES,
    PHOTO_URI,
    format_boxes,
    is_text,
    normalize_listed,
    read_columns,
    to_column,
    warn_of_boxes,
)
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError, StorageError
from jobs.findings.config import AddVerdictsConfig
from jobs.results.delta import locate_table
from jobs.results.known import stream_known
from jobs.review.verdicts import KEY, WORDS, locate_verdicts, write_verdicts
from jobs.tables.boxes import explain_commas, format_value, is_absent, parse_box
from jobs.tables.schema import VERDICTS
from jobs.tables.text import make_printable

_MAX_NAMED = 10
_NEWER_NAMES = {older: name for name, older in OLDER_NAMES.items()}
_MAX_AHEAD = timedelta(days=1)
"""A verdict may lie so far in the future: clocks and time zones of reviewers differ."""


def add_verdicts(config: AddVerdictsConfig) -> int:
    """Adds the verdicts of a file to the table; rows that are none are named and left out.

    Raises:
        RequestError: the file is no list with image_uri and verdict.
        StorageError: storage refused, or the table is damaged.
    """
    rows, problems, unjudged = read_verdict_list(config.file, by=config.by or find_user())
    added = write_verdicts(config.results, rows)
    print(f"{added} verdicts added to {locate_verdicts(config.results)}, {len(rows) - added} were there already")
    if unjudged:
        print(f"{unjudged} photos of the list have no verdict yet")
    for said in (describe_contradictions(rows), describe_strangers(config.results, rows)):
        if said:
            print(said, file=sys.stderr)
    for problem in problems[:_MAX_NAMED]:
        print(f"left out {problem}", file=sys.stderr)
    if len(problems) > _MAX_NAMED:
        print(f"left out {len(problems) - _MAX_NAMED} more", file=sys.stderr)
    return EXIT_TOO_MANY_UNREADABLE if problems else EXIT_DONE


def find_user() -> str | None:
    """Returns the name of this user; None in a container that does not name it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def describe_contradictions(rows: pa.Table) -> str:
    """Says on how many photos VERDICTS rows of one moment differ, as where a list has no times; empty if on none."""
    said: dict[tuple[Any, ...], set[str]] = {}
    for row in rows.to_pylist():
        said.setdefault((*(row[name] for name in KEY), row["at"]), set()).add(row["verdict"])
    torn = [key[0] for key, words in said.items() if len(words) > 1]
    if not torn:
        return ""
    return (
        f"warning: {len(torn)} photos have different verdicts of one moment, such as {make_printable(torn[0])}: defect "
        "holds before good, and good before unsure; give the column at, or one row a photo, to say which is newer"
    )


def describe_strangers(results: str, rows: pa.Table) -> str:
    """Says which VERDICTS rows are about no row of the result table, as after a typing error; empty where none is."""
    judged = rows.select(list(KEY)).to_pylist()
    try:
        _, known = stream_known(results, KEY, photos=pc.unique(rows["image_uri"].combine_chunks()))
        there: dict[tuple[str, str | None], set[str | None]] = {}
        for batch in known:
            for row in batch.to_pylist():
                there.setdefault((row["image_uri"], row["box"]), set()).add(row["image_etag"])
    except (RequestError, StorageError) as error:
        return f"warning: the photos were not looked up in the result table: {error}"
    strange = [
        row["image_uri"]
        for row in judged
        if not (etags := there.get((row["image_uri"], row["box"])))
        or not (row["image_etag"] is None or etags & {row["image_etag"], None})
    ]
    if not strange:
        return ""
    return (
        f"warning: {len(strange)} of {len(judged)} verdicts are on photos, boxes or bytes that {locate_table(results)} "
        f"does not have, such as {make_printable(strange[0])}: they count once a run has found these; else correct "
        "image_uri, image_etag, box or --results, and add them again"
    )


def read_verdict_list(file: str, *, by: str | None) -> tuple[pa.Table, list[str], int]:
    """Reads a CSV or Parquet list of verdicts.

    Args:
        file: its URI; columns image_uri and verdict, and any of image_etag, box, by, at.
        by: who looked, for rows that do not say it; None where that is not known.

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
        if all(map(is_absent, row.values())):
            continue  # as spreadsheets write them below a table
        if row["image_uri"] and not str(row["verdict"] or "").strip():
            unjudged += 1  # the list of a sample that is not looked through yet
        elif problem := find_problem(row):
            problems.append(f"row {number} of {file}: {problem}")
        else:
            found.append(complete_verdict(row, by=by, at=now))
    return pa.Table.from_pylist(found, schema=VERDICTS), problems, unjudged


def stream_list(file: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a list with the columns of VERDICTS that it has.

    Raises:
        RequestError: a column is of a type that says nothing, as numbers do of a time.
    """
    for batch in read_columns(file, select_verdict_columns):
        names = [_NEWER_NAMES.get(name, name) for name in batch.schema.names]
        have = dict(zip(names, batch.columns, strict=True))
        columns = {name: read_column(name, values, file) for name, values in have.items() if name not in BOX_COLUMNS}
        if set(BOX_COLUMNS) <= set(have):
            columns["box"] = format_boxes([have[name] for name in BOX_COLUMNS])
        yield from pa.table(columns).to_pylist()


def read_column(name: str, values: pa.Array, file: str) -> pa.Array:
    """Converts a column of a list as archive lists are read; a text that may be no verdict or no time is kept."""
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)  # as pandas writes what is missing
    if name in ("verdict", "box") or (name == "at" and (is_text(values.type) or values.null_count == len(values))):
        return values
    return to_column(values, VERDICTS.field(name), place=file)


def select_verdict_columns(names: list[str], file: str) -> list[str]:
    """Selects the columns of VERDICTS that a list has, and those of a box.

    Raises:
        RequestError: one that is needed is not there.
    """
    known = [name if name in names else OLDER_NAMES.get(name, name) for name in VERDICTS.names]
    found = [name for name in known if name in names]
    if missing := {"image_uri", "verdict"}.difference(_NEWER_NAMES.get(name, name) for name in found):
        raise RequestError(
            f"{file} has no column {' or '.join(sorted(missing))}: expected image_uri, verdict and any of image_etag, "
            f"box (or x, y, width, height), by, at, got {', '.join(names) or 'nothing'}"
        )
    warn_of_boxes(names, file)
    return found if "box" in found or not set(BOX_COLUMNS) <= set(names) else [*found, *BOX_COLUMNS]


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
            return f"box must be x,y,width,height in pixels, got {make_printable(box)}{explain_commas(box)}"
    if isinstance(at, str) and at and parse_time(at) is None:
        return f"at must be a time in ISO 8601, got {make_printable(at)}"
    moment = parse_time(at) if isinstance(at, str) else at
    if moment is not None and moment > datetime.now(UTC) + _MAX_AHEAD:
        return f"at must be past, or no later verdict would ever hold, got {make_printable(str(at))}"
    return ""


def read_box(row: Mapping[str, Any]) -> str | None:
    """Reads a row's box as archive lists are read, so that a verdict finds its row of results; None where none is."""
    given = row.get("box")
    return None if is_absent(given) else format_value(given)


def complete_verdict(row: Mapping[str, Any], *, by: str | None, at: datetime) -> dict[str, Any]:
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
