"""The runs that wrote into a table: which are done, which began and were not finished, and whose clock was wrong."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.errors import StorageError
from jobs.results.delta import locate_table, open_current
from jobs.results.known import list_files
from jobs.storage import uris
from jobs.tables.schema import TIME, define_column

RECORDS = "runs"
"""Folder of the run records, below the results."""
RECORDS_AT_ONCE = 16
"""Records that are read at once."""
_CLOCKS_DIFFER = timedelta(hours=1)
"""So much, at most, do the clocks of machines differ that somebody sets."""
RUNS = pa.schema(
    [
        define_column("run_id", pa.string(), "the run; joins the result table"),
        define_column("status", pa.string(), "finished; or unfinished: under way, or killed and not continued"),
        define_column("archive", pa.string(), "what was scored"),
        define_column("started_at", TIME, "when it began"),
        define_column("written_at", TIME, "when its record was last written"),
        define_column("listed", pa.int64(), "objects in the archive"),
        define_column("slices", pa.int64(), "commits that it takes"),
        define_column("committed_slices", pa.int64(), "commits that are in the table"),
        define_column("rows", pa.int64(), "rows that it wrote; null while unfinished, ask the table"),
        define_column("anomalies", pa.int64(), "rows flagged; null while unfinished"),
    ]
)
"""A row for each run."""


def list_records(results: str) -> list[str]:
    """Lists the URIs of the records of all runs, finished or not."""
    return [info.uri for info in storage.list_objects(uris.join(results, RECORDS)) if info.uri.endswith(".json")]


def read_runs(results: str) -> pa.Table:
    """Reads the records of all runs as RUNS rows, in the order in which they began.

    Raises:
        StorageError: a record is damaged, or storage refused.
    """
    found = list_records(results)
    with ThreadPoolExecutor(RECORDS_AT_ONCE) as pool:
        # A run that was killed while it took its unfinished record away has both; the finished one holds.
        rows = sorted(pool.map(describe_record, found), key=lambda row: row["status"] != "unfinished")
    by_run = {row["run_id"]: row for row in rows}
    return pa.Table.from_pylist(list(by_run.values()), schema=RUNS).sort_by([("started_at", "ascending")])


def describe_record(uri: str) -> dict[str, Any]:
    """Reads one record as a RUNS row. Raises StorageError where it is damaged."""
    try:
        record = json.loads(storage.read(uri))
        status, counts = record.get("status", "finished"), record.get("counts")
        return {
            "run_id": record["run_id"],
            "status": status,
            "archive": record.get("config", {}).get("archive"),
            "started_at": parse_time(record.get("started_at")),
            "written_at": parse_time(record.get("published_at") or record.get("updated_at")),
            "listed": record.get("listed"),
            "slices": record.get("slices"),
            "committed_slices": record.get("committed_slices", record.get("slices")),
            "rows": sum(counts.values()) if counts else None,
            "anomalies": record.get("anomalies"),
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StorageError(f"{uri} is damaged: expected the JSON of a run record; restore it or delete it") from error


def parse_time(text: str | None) -> datetime | None:
    """Parses a time of a record; None for none."""
    return datetime.fromisoformat(text) if text else None


def describe_future_rows(results: str) -> str:
    """Says that a table has rows of later than now, which hide what is found now; empty where it has none.

    Raises:
        RequestError, StorageError: as for `jobs.results.delta.open_table`.
    """
    table, uri = open_current(results), locate_table(results)
    if table is None:
        return ""
    newest = max((file.newest for file in list_files(table, results) if file.newest is not None), default=None)
    if newest is None or newest < datetime.now(UTC) + _CLOCKS_DIFFER:
        return ""
    return (
        f"warning: {uri} has rows of {newest:%Y-%m-%d %H:%M} UTC, later than now: until then they count as newer than "
        "what this run finds. Set the clock of this machine; if it is right, a run of before had a wrong one, and "
        "`python -m jobs.table history` names the version to restore"
    )
