"""Files below the table that no version of it names: what killed runs have left, which plain readers would count."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from deltalake import DeltaTable

from jobs import storage
from jobs.results.delta import explain_errors, locate_table, open_current
from jobs.results.known import list_files
from jobs.storage import ObjectInfo, uris

_OURS = re.compile(r"(?P<run>[^@/]+)(@[^/]*)?-\d{5}-[0-9a-f]{12}-\d{5}\.parquet")
"""Names that `jobs.results.files.put_files` gives."""
_GATHERED = re.compile(r"part-\d+-[0-9a-f-]{36}\S*\.parquet")
"""Names that deltalake gives the files of a compaction."""
_MAX_COMMIT_AGE = timedelta(hours=24)
"""No commit takes so long: an older file that no version names was left behind, whoever holds a lease."""


def remove_orphans(results: str, *, run_id: str) -> list[str]:
    """Deletes files of slices that were never committed, so that `scores/**/*.parquet` has the table's rows alone.

    Those of a run that is under way are kept: it may commit them yet. A run calls this at its start and its end.

    Args:
        results: base URI of the results.
        run_id: the caller, who holds its lease and has no commit under way.

    Returns:
        The URIs of what was deleted.

    Raises:
        RequestError, StorageError: as for `jobs.results.delta.open_table`.
    """
    running = list_running(results) - {run_id}

    def is_left_behind(info: ObjectInfo) -> bool:
        name = info.uri.rsplit("/", 1)[1]
        if found := _OURS.fullmatch(name):
            return found["run"] not in running or find_age(info) > _MAX_COMMIT_AGE
        return bool(_GATHERED.fullmatch(name)) and find_age(info) > _MAX_COMMIT_AGE

    return delete_unnamed(results, is_left_behind)


def delete_unnamed(results: str, is_wanted: Callable[[ObjectInfo], bool], *, dry_run: bool = False) -> list[str]:
    """Deletes, or lists alone, those files that no version of the table names and that ``is_wanted`` says yes to."""
    # Listed before the table is opened: what is committed in between is then in the table.
    found = [info for info in list_data_files(results) if is_wanted(info)]
    table = open_current(results) if found else None
    if table is None:
        return []
    named = {file.uri for file in list_files(table, results)} | list_replaced(table, results)
    unnamed = [info.uri for info in found if info.uri not in named]
    for uri in () if dry_run else unnamed:
        storage.delete(uri)
    return unnamed


def list_data_files(results: str) -> list[ObjectInfo]:
    """Lists the Parquet files below the table, whoever wrote them."""
    table = locate_table(results)
    hidden = uris.join(table, "_")
    return [
        info
        for info in storage.list_objects(table)
        if info.uri.endswith(".parquet") and not info.uri.startswith(hidden)
    ]


def list_replaced(table: DeltaTable, results: str, *, retention_hours: float = 0.0) -> set[str]:
    """Lists files that later ones have replaced, at least so long ago: earlier versions of the table name them."""
    uri = locate_table(results)
    with explain_errors(uri):
        paths = table.vacuum(
            retention_hours=0 if not retention_hours else max(1, round(retention_hours)),
            dry_run=True,
            enforce_retention_duration=False,
            full=False,
        )
    return {uris.join(uri, path) for path in paths}


def list_running(results: str) -> set[str]:
    """Lists the runs whose lease lies in their staging: they are under way, or were killed and not taken up again."""
    staging = uris.join(results, "staging")
    leases = [info.uri for info in storage.list_objects(staging) if info.uri.endswith("/lease.json")]
    return {uri[len(staging) + 1 :].split("/", 1)[0] for uri in leases}


def find_age(info: ObjectInfo) -> timedelta:
    """Returns how long ago a file was written."""
    return datetime.now(UTC) - info.last_modified
