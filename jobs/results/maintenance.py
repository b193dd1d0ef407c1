"""Care of the table: fewer and larger files, nothing left behind, nothing lost unnoticed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError

from jobs import storage
from jobs.errors import RequestError, StorageError, one_line
from jobs.results.config import SAFE_RETENTION_HOURS
from jobs.results.delta import HOOKS, explain_errors, locate_table, open_current
from jobs.results.known import list_files
from jobs.results.orphans import delete_unnamed, find_age, list_replaced, list_running
from jobs.tables.files import FILE_BYTES, ROW_GROUP_ROWS

_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP_ROWS)


@dataclass(frozen=True)
class Optimized:
    """Files of the table before and after."""

    files_before: int
    files_after: int


def optimize_table(results: str) -> Optimized:
    """Gathers the small files of each day into larger ones; rows and their order within a file stay.

    A run that commits meanwhile is not disturbed: it adds files, and this replaces others.

    Raises:
        RequestError: there is no table.
        StorageError: another process has replaced the same files meanwhile, or the storage refused.
    """
    uri, table = locate_table(results), require_table(results)
    before = len(list_files(table, results))
    try:
        with explain_errors(uri, needs="write"):
            table.optimize.compact(
                target_size=FILE_BYTES,
                max_concurrent_tasks=1,
                writer_properties=_WRITER,
                post_commithook_properties=HOOKS,
            )
    except CommitFailedError as error:
        raise StorageError(
            f"{uri}: another process replaced the same files meanwhile, run again: {one_line(error)}"
        ) from error
    return Optimized(before, len(list_files(require_table(results), results)))


def vacuum_table(results: str, *, retention_hours: float, dry_run: bool = False) -> list[str]:
    """Deletes files that no row of the table is in any more, and that were in use longer ago than the retention.

    Returns:
        Their URIs.

    Raises:
        RequestError: there is no table, or a run is under way that a short retention would break.
        StorageError: the storage refused.
    """
    table = require_table(results)
    check_no_run(results, retention_hours)
    found = sorted(list_replaced(table, results, retention_hours=retention_hours))
    there = {info.uri for info in storage.list_objects(locate_table(results))} if found else set()
    found = [uri for uri in found if uri in there]
    for uri in () if dry_run else found:
        storage.delete(uri)
    oldest = timedelta(hours=max(retention_hours, 0.0))
    running = list_running(results)
    return found + delete_unnamed(
        results,
        lambda info: find_age(info) > (max(oldest, timedelta(hours=SAFE_RETENTION_HOURS)) if running else oldest),
        dry_run=dry_run,
    )


def check_no_run(results: str, retention_hours: float) -> None:
    """Raises RequestError where a run is under way and the retention is shorter than a run may take."""
    if retention_hours < SAFE_RETENTION_HOURS and (running := sorted(list_running(results))):
        raise RequestError(
            f"run {running[0]} is under way, or was killed and not continued, and may read files that were replaced "
            f"less than {SAFE_RETENTION_HOURS:g} h ago: wait for it, or vacuum with --retention-hours of that or more"
        )


def repair_table(results: str, *, dry_run: bool = False) -> list[str]:
    """Takes files that are lost out of the table; returns their URIs.

    Raises:
        RequestError: there is no table.
        StorageError: the log is damaged, or the storage refused.
    """
    table, uri = require_table(results), locate_table(results)
    there = {info.uri for info in storage.list_objects(uri)}
    lost = [file.uri for file in list_files(table, results) if file.uri not in there]
    if lost and not dry_run:
        with explain_errors(uri, needs="write"):
            table.repair(post_commithook_properties=HOOKS)
    return lost


def read_history(results: str, *, limit: int) -> list[dict[str, Any]]:
    """Reads the newest versions of the table, newest first: version, at, operation, run, slice, rows, files.

    Raises:
        RequestError: there is no table.
        StorageError: the log is damaged, or the storage refused.
    """
    table = require_table(results)
    with explain_errors(locate_table(results)):
        commits = table.history(limit)
    return [describe_commit(commit) for commit in commits]


def describe_commit(commit: dict[str, Any]) -> dict[str, Any]:
    """Describes one version for people."""
    return {
        "version": commit["version"],
        "at": commit["timestamp"],
        "operation": commit.get("operation"),
        "run": commit.get("runId"),
        "slice": commit.get("slice"),
        "rows": commit.get("rows"),
    }


def require_table(results: str) -> DeltaTable:
    """Opens the table. Raises RequestError where there is none."""
    table = open_current(results)
    if table is None:
        raise RequestError(
            f"{locate_table(results)} is no table: nothing was published there yet, or correct --results"
        )
    return table
