"""Verdicts: what people found on photos, in a Delta table beside the scores; of two on one photo the newer holds."""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from jobs.archive.keys import parse_time
from jobs.archive.uri_list import normalize_listed, read_columns
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError, StorageError, one_line
from jobs.findings.config import AddVerdictsConfig
from jobs.results.access import make_location, make_storage_options
from jobs.results.delta import HOOKS, explain_errors
from jobs.storage import uris
from jobs.tables.schema import VERDICTS
from jobs.tables.text import make_printable

TABLE = "verdicts"
"""Folder of the verdicts, below the results."""
WORDS = ("good", "defect", "unsure")
KEY = ("image_uri", "image_etag", "box")
_BOX = re.compile(r"-?\d+,-?\d+,[1-9]\d*,[1-9]\d*")
_URI = re.compile(r"(s3|gs|az)://[^/]+/.|file:///.")
_MAX_NAMED = 10


def add_verdicts(config: AddVerdictsConfig) -> int:
    """Adds the verdicts of a file to the table; rows that are none are named and left out.

    Raises:
        RequestError: the file is no list with image_uri and verdict.
        StorageError: storage refused, or the table is damaged.
    """
    rows, problems = read_verdict_list(config.file, by=config.by or getpass.getuser())
    added = write_verdicts(config.results, rows)
    print(f"{added} verdicts added to {locate_verdicts(config.results)}, {len(rows) - added} were there already")
    for problem in problems[:_MAX_NAMED]:
        print(f"left out {problem}", file=sys.stderr)
    if len(problems) > _MAX_NAMED:
        print(f"left out {len(problems) - _MAX_NAMED} more", file=sys.stderr)
    return EXIT_TOO_MANY_UNREADABLE if problems else EXIT_DONE


def locate_verdicts(results: str) -> str:
    """Returns the URI of the table of verdicts."""
    return uris.join(results, TABLE)


def read_verdict_list(file: str, *, by: str) -> tuple[pa.Table, list[str]]:
    """Reads a CSV or Parquet list of verdicts.

    Args:
        file: its URI; columns image_uri and verdict, and any of image_etag, box, by, at.
        by: who looked, for rows that do not say it.

    Returns:
        VERDICTS rows, and why each of the other rows is none.

    Raises:
        RequestError: it is no such list.
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    now = datetime.now(UTC)
    for number, row in enumerate(stream_list(file), start=1):
        if problem := find_problem(row):
            problems.append(f"row {number} of {file}: {problem}")
        else:
            found.append(complete_verdict(row, by=by, at=now))
    return pa.Table.from_pylist(found, schema=VERDICTS), problems


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
    uri, verdict, box, at = normalize_listed(row["image_uri"]), row["verdict"], row.get("box"), row.get("at")
    if not uri or not _URI.match(uri):
        return f"image_uri must be s3://bucket/key, gs://, az:// or a file, got {make_printable(str(row['image_uri']))}"
    if str(verdict).strip().lower() not in WORDS:
        return f"verdict must be {', '.join(WORDS)}, got {make_printable(str(verdict))}"
    if box and not _BOX.fullmatch(box):
        return f"box must be x,y,width,height in pixels, got {make_printable(str(box))}"
    if isinstance(at, str) and at and parse_time(at) is None:
        return f"at must be a time in ISO 8601, got {make_printable(at)}"
    return ""


def complete_verdict(row: Mapping[str, Any], *, by: str, at: datetime) -> dict[str, Any]:
    """Returns a VERDICTS row of a list's row that has no problem."""
    given = row.get("at")
    return {
        "image_uri": normalize_listed(row["image_uri"]),
        "image_etag": row.get("image_etag") or None,
        "box": row.get("box") or None,
        "verdict": row["verdict"].strip().lower(),
        "by": row.get("by") or by,
        "at": (parse_time(given) if isinstance(given, str) else given) or at,
    }


def write_verdicts(results: str, rows: pa.Table) -> int:
    """Adds VERDICTS rows that the table does not have yet, and returns how many; makes the table if need be.

    The same file twice adds nothing the second time, if its rows say when they were made.
    """
    known = read_verdicts(results)
    new = rows if known is None else leave_out_known(rows, known)
    uri = locate_verdicts(results)
    if len(new) or known is None:
        with explain_errors(uri):
            try:
                write_deltalake(
                    make_location(uri),
                    new,
                    mode="append",
                    name=TABLE,
                    description="attentdiffernet-ray: what people found on photos; the newest verdict holds",
                    storage_options=make_storage_options(uri),
                    post_commithook_properties=HOOKS,
                )
            except CommitFailedError as error:
                raise StorageError(f"{uri}: the commit failed: {one_line(error)[:200]}; run again") from error
    return len(new)


def leave_out_known(rows: pa.Table, known: pa.Table) -> pa.Table:
    """Returns the rows that are not in ``known`` word for word."""
    there = {tuple(row.values()) for row in known.select(VERDICTS.names).to_pylist()}
    is_new = [tuple(row.values()) not in there for row in rows.to_pylist()]
    return rows.filter(pa.array(is_new, pa.bool_()))


def read_verdicts(results: str) -> pa.Table | None:
    """Reads all verdicts, VERDICTS rows; None where there is no table yet.

    Raises:
        StorageError: the table is damaged, or storage refused.
    """
    uri = locate_verdicts(results)
    with explain_errors(uri):
        try:
            table = DeltaTable(make_location(uri), storage_options=make_storage_options(uri))
        except TableNotFoundError:
            return None
        return pa.table(table.to_pyarrow_table(columns=list(VERDICTS.names))).cast(VERDICTS)


def select_latest(verdicts: pa.Table, key: Sequence[str] = KEY) -> pa.Table:
    """Returns the newest of the VERDICTS rows of each photo, bytes and box."""
    order = pc.sort_indices(verdicts, sort_keys=[("at", "descending"), ("verdict", "ascending")])
    ranked = verdicts.take(order).append_column("row", pa.array(range(len(verdicts)), pa.int64()))
    first = ranked.group_by(list(key), use_threads=False).aggregate([("row", "min")])["row_min"]
    return ranked.take(first).select(verdicts.schema.names)
