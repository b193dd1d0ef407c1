"""Care of the table: fewer and larger files, nothing left behind, nothing lost unnoticed."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from deltalake import ColumnProperties, DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from jobs import storage
from jobs.errors import ConflictError, RequestError, StorageError, one_line
from jobs.results.commit import explain_full_disk
from jobs.results.config import SAFE_RETENTION_HOURS
from jobs.results.delta import (
    HOOKS,
    LOG,
    ROWS,
    RUN_DATE,
    explain_errors,
    has_day_folders,
    locate_table,
    make_properties,
    open_current,
)
from jobs.results.files import UNIQUE, put_files, stream_local_files
from jobs.results.known import ActiveFile, group_by_folder, list_files, scan_files
from jobs.results.orphans import delete_unnamed, find_age, list_replaced, list_running
from jobs.storage import uris
from jobs.tables.files import FILE_BYTES, ROW_GROUP_ROWS

_WRITER = WriterProperties(
    compression="ZSTD",
    max_row_group_size=ROW_GROUP_ROWS,
    column_properties={name: ColumnProperties(dictionary_enabled=False) for name in UNIQUE},
)
_MAX_TRIES = 20
_LOST_NAME = "~"
"""deltalake writes it escaped in one place and not in another, so its compaction does not find such a file. Earlier
versions of this program named the files of parts of a run so."""


@dataclass(frozen=True)
class Optimized:
    """What became of the table: its files before and after, and whether each day has a folder of its own still."""

    files_before: int
    files_after: int
    has_day_folders: bool


def optimize_table(results: str, *, join_days: bool = False) -> Optimized:
    """Gathers small files into larger ones; rows and their order within a file stay.

    A file that is as large as `FILE_BYTES` is not written again. A run that commits meanwhile is not disturbed: it adds
    files, and this replaces others.

    Args:
        results: base URI of the results.
        join_days: first rewrites a table that has a folder for each day, else files of two days stay apart.

    Raises:
        RequestError: there is no table.
        StorageError: another process has replaced the same files meanwhile, or the storage refused.
    """
    uri, table = locate_table(results), require_table(results)
    before = len(list_files(table, results))
    rewrite_files(results, join_days=join_days and has_day_folders(table))
    table = require_table(results)
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
    table = require_table(results)
    return Optimized(before, len(list_files(table, results)), has_day_folders(table))


def rewrite_files(results: str, *, join_days: bool) -> None:
    """Writes files anew that a compaction by deltalake cannot gather, in one commit that adds no row.

    Those are the files of a table of before, each row with its day then (``join_days``); else the files whose names
    deltalake does not find again. Runs go on meanwhile: what they commit is rewritten, too, before the commit; a run
    that commits later sees that the folders are gone. The files of before stay until a vacuum, for whoever reads an
    earlier version.

    Raises:
        JobError: the local disk is full.
        RequestError: the table has columns of other programs, which the new files would not have.
        StorageError: another process has replaced the same files meanwhile, or the storage refused.
    """
    uri, rewritten, added = locate_table(results), dict[str, ActiveFile](), list[AddAction]()
    for _ in range(_MAX_TRIES):
        table = require_table(results)
        files = list_files(table, results)
        wanted = {file.uri: file for file in files if join_days or _LOST_NAME in file.path}
        if not wanted:
            return
        check_columns(table, uri)
        if rewritten.keys() - wanted.keys():
            break
        new = [file for name, file in wanted.items() if name not in rewritten]
        for day, group in {None: new}.items() if join_days else group_by_folder(new).items():
            added += put_again(group, uri, day=day)
        rewritten = wanted
        metadata = describe_without_folders(table) if join_days else None
        actions = describe_rewriting(metadata, rewritten.values(), added)
        commit = "\n".join(json.dumps(action) for action in actions).encode()
        try:
            storage.write(uris.join(uri, LOG, f"{table.version() + 1:020d}.json"), commit, if_absent=True)
        except ConflictError:
            continue  # a run was first
        return
    raise StorageError(f"{uri}: other processes changed the same files again and again, run again when they have ended")


def check_columns(table: DeltaTable, uri: str) -> None:
    """Raises RequestError for a table with columns that this program does not write."""
    if strange := sorted({field.name for field in table.schema().fields} - set(ROWS.names)):
        raise RequestError(
            f"{uri} has the column {', '.join(strange)} of another program, which files that are written anew would "
            "not have: drop it there, or leave these files as they are"
        )


def put_again(files: Sequence[ActiveFile], uri: str, *, day: date | None) -> list[AddAction]:
    """Puts the rows of files into the table's folder, with the day of each, or into the folder of their ``day``.

    One file at a time is on local disk.
    """
    added: list[AddAction] = []
    columns = [name for name in ROWS.names if not day or name != RUN_DATE.name]
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-rewrite-") as folder, explain_full_disk(folder):
        for file in stream_local_files(scan_files(files, columns), Path(folder)):
            # Named as a compaction names its own, so that no run takes them for what a dead one has left.
            with explain_errors(uri, needs="write"):
                added += put_files([file], uri, name=f"part-{len(added):05d}-{uuid.uuid4()}", day=day)
            file.path.unlink()
    return added


def describe_without_folders(table: DeltaTable) -> dict[str, Any]:
    """Returns the metadata of a table as its log has it, but without partitions."""
    metadata = table.metadata()
    return {
        "id": str(metadata.id),
        "name": metadata.name,
        "description": metadata.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": table.schema().to_json(),
        "partitionColumns": [],
        "configuration": metadata.configuration | make_properties(has_day_folders=False),
        "createdTime": metadata.created_time,
    }


def describe_rewriting(
    metadata: dict[str, Any] | None, replaced: Iterable[ActiveFile], added: Iterable[AddAction]
) -> Iterator[dict[str, Any]]:
    """Yields the actions of a commit that replaces files by others with the same rows.

    No function of deltalake does that: its overwriting says that all rows are new, and runs would drop theirs.
    """
    now = time.time_ns() // 1_000_000
    yield {"commitInfo": {"timestamp": now, "operation": "REWRITE FILES", "operationParameters": {}}}
    if metadata is not None:
        yield {"metaData": metadata}
    for file in replaced:
        values = {RUN_DATE.name: file.folder_day.isoformat()} if file.folder_day else {}
        gone = {"path": file.path, "partitionValues": values, "size": file.size_bytes}
        yield {"remove": gone | {"deletionTimestamp": now, "dataChange": False, "extendedFileMetadata": True}}
    for action in added:
        add = {"path": action.path, "partitionValues": action.partition_values, "size": action.size}
        yield {"add": add | {"stats": action.stats, "modificationTime": action.modification_time, "dataChange": False}}


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
        "at": commit.get("timestamp"),  # other programs' commits may say nothing of themselves
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
