"""Adding a slice of a run to the result table: one commit, once, without what others have added meanwhile."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from jobs.errors import JobError, StorageError, is_disk_full, one_line
from jobs.results.conflicts import drop_committed, list_added_files
from jobs.results.delta import (
    HOOKS,
    explain_errors,
    has_day_folders,
    locate_table,
    open_current,
    open_or_create_table,
)
from jobs.results.files import LocalFile, add_day, leave_out_day, put_files, write_local_files

KEY = (
    "image_uri",
    "image_etag",
    "box",
    "weights_id",
    "detector_id",
    "false_alarm_rate",
    "confidence",
)
"""Columns that make two rows the same result: the photo's bytes, the part of it, weights, and false-alarm settings."""
_MAX_TRIES = 200


@dataclass(frozen=True)
class Committed:
    """What became of a slice.

    Attributes:
        version: of the table that has its rows.
        rows: how many were added; 0 if they were there already.
        dropped: how many others had committed meanwhile, and were left out.
        already: whether the slice had been committed before, so that nothing was done.
    """

    version: int
    rows: int
    dropped: int
    already: bool


def commit_slice(
    results: str,
    rows: Iterable[pa.RecordBatch],
    *,
    run_id: str,
    slice_number: int,
    run_date: date,
    known_since: int,
    keys: Sequence[str] = KEY,
) -> Committed:
    """Adds the rows of one slice to the table in one commit; does nothing if that was done before.

    The commit is optimistic: rows that others have committed since ``known_since`` are left out, and whoever loses the
    race for the next version looks again and goes on. Slices of one ``run_id`` are committed in rising order.

    Args:
        results: base URI of the results.
        rows: SCORES rows, best in the order of ``ROW_ORDER``; read once, and not at all if the slice is there already.
        run_id: the run, or ``<run_id>/<part>`` for a part that counts its slices by itself.
        slice_number: from 0 on.
        run_date: day of the run, which every row gets.
        known_since: version of the table that the run read what is known from; -1 where there was no table.
        keys: columns that make two rows the same result.

    Raises:
        JobError: no room is left, on local disk or in the storage.
        RequestError: what lies there is no table, or one of a newer version.
        StorageError: the log is damaged, or the storage refused.
    """
    table = open_or_create_table(results)
    if is_committed(table, run_id, slice_number):
        return Committed(table.version(), rows=0, dropped=0, already=True)
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-slice-") as folder, explain_full_disk(folder):
        files = write_local_files(add_day(rows, run_date), Path(folder))
        return commit_files(results, table, files, Slice(run_id, slice_number, run_date, tuple(keys)), known_since)


@dataclass(frozen=True)
class Slice:
    """Which slice is committed: of which run and day, and what makes two rows the same."""

    run_id: str
    number: int
    run_date: date
    keys: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """What the names of its files begin with; they carry the run, so that leftovers are known."""
        # No run id has an @. A ~ delta-rs escapes in one place and not in another: its compaction would not find them.
        return f"{self.run_id.replace('/', '@')}-{self.number:05d}"


def commit_files(results: str, table: DeltaTable, files: list[LocalFile], mine: Slice, known_since: int) -> Committed:
    """Commits finished local files, without the rows that others commit until it succeeds.

    Raises:
        StorageError: it lost too often against other runs, or the storage refused.
    """
    uri, dropped = locate_table(results), 0
    actions: list[AddAction] | None = None
    folder: date | None = None
    for attempt in range(_MAX_TRIES):
        others = list_added_files(table, uri, since=known_since, but=mine.run_id)
        kept = drop_committed(files, others, keys=mine.keys) if others else files
        dropped += count_rows(files) - count_rows(kept)
        day = mine.run_date if has_day_folders(table) else None
        if actions is None or kept is not files or day != folder:  # a table may lose its folders meanwhile
            with explain_errors(uri, needs="write"):
                actions = put_files(leave_out_day(kept) if day else kept, uri, name=mine.file_name, day=day)
            folder = day
        files, known_since = kept, table.version()
        if try_commit(table, uri, actions, mine):
            return Committed(table.version(), rows=count_rows(files), dropped=dropped, already=False)
        time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311  # so that losers do not meet again
        table = open_or_create_table(results)
        if is_committed(table, mine.run_id, mine.number):
            return settle_own_commit(table, actions, dropped)
    raise StorageError(f"{uri}: {_MAX_TRIES} tries to commit lost against other runs: run again when they have ended")


def try_commit(table: DeltaTable, uri: str, actions: list[AddAction], mine: Slice) -> bool:
    """Writes the next version of the log; False if another run was first."""
    properties = CommitProperties(
        app_transactions=[Transaction(mine.run_id, mine.number)],
        max_commit_retries=0,  # deltalake's own tries would not look at what others have added
        custom_metadata={"runId": mine.run_id, "slice": mine.number, "rows": count_added(actions)},
    )
    before = table.version()
    try:
        with explain_errors(uri, needs="write"):
            table.create_write_transaction(
                list(actions),
                mode="append",
                schema=table.schema(),
                partition_by=table.metadata().partition_columns,
                commit_properties=properties,
                post_commithook_properties=HOOKS,
            )
            table.update_incremental()
    except CommitFailedError as error:
        return explain_lost_race(error, table, uri, before)
    return True


def explain_lost_race(error: CommitFailedError, table: DeltaTable, uri: str, before: int) -> bool:
    """Returns False if another commit was first; raises what else it was.

    Raises:
        StorageError: no other commit was.
    """
    with explain_errors(uri, needs="write"):
        table.update_incremental()
    if table.version() == before:
        raise StorageError(f"{uri}: the commit failed: {one_line(error)[:200]}; the same command continues") from error
    return False


def settle_own_commit(table: DeltaTable, actions: list[AddAction], dropped: int) -> Committed:
    """Tells whether a slice that is there now was ours, whose answer got lost, or that of another process."""
    paths = set(table.get_add_actions(flatten=True).column("path").to_pylist())
    ours = bool(actions) and actions[0].path in paths
    rows = count_added(actions) if ours else 0
    return Committed(table.version(), rows=rows, dropped=dropped if ours else 0, already=not ours)


def is_committed(table: DeltaTable, run_id: str, slice_number: int) -> bool:
    """Tells whether a slice is in the table: Delta accepts a repeated one, and it would count twice."""
    last = table.transaction_version(run_id)
    return last is not None and last >= slice_number


def find_next_slice(results: str, run_id: str) -> int:
    """Finds the number of the next slice of a run: 0, or what follows those of its earlier tries."""
    table = open_current(results)
    last = table.transaction_version(run_id) if table is not None else None
    return 0 if last is None else last + 1


def count_added(actions: Iterable[AddAction]) -> int:
    """Counts the rows of the files of a commit."""
    return sum(int(json.loads(action.stats)["numRecords"]) for action in actions)


def count_rows(files: Iterable[LocalFile]) -> int:
    """Counts the rows of files."""
    return sum(file.rows for file in files)


@contextmanager
def explain_full_disk(folder: str) -> Iterator[None]:
    """Says which disk is full, where it is the local one.

    Raises:
        JobError: it is.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise JobError(
            f"no room is left in {folder}, where a slice is put together, so nothing was committed: make room there, "
            "or set TMPDIR to a larger disk; the same command continues"
        ) from error
