"""What others have added to the table since a run has read it, and what of ours is the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from jobs import storage
from jobs.errors import MissingObjectError
from jobs.results.delta import LOG
from jobs.results.errors import make_log_error
from jobs.results.files import LocalFile, scan_local_files, write_local_files
from jobs.storage import uris
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import SCORES
from jobs.tables.scratch import Scratch

_COMMITS_AT_ONCE = 16
_NUMBER = pa.field("number", pa.int64())


@dataclass(frozen=True)
class AddedFile:
    """A file that a commit has added: its URI, and the range of its image_uri (None where the log has none)."""

    uri: str
    first: str | None
    last: str | None


def list_added_files(table: DeltaTable, uri: str, *, since: int, but: str) -> list[AddedFile]:
    """Lists the files with new rows that others have committed after the version ``since``.

    Files that only gather rows of others, as a compaction writes, have none.

    Args:
        table: the open table.
        uri: of the table.
        since: version up to which all is known.
        but: application id whose commits are left out: the run's own slices.
    """
    versions = range(since + 1, table.version() + 1)
    if not versions:
        return []
    identity = str(table.metadata().id)
    with ThreadPoolExecutor(_COMMITS_AT_ONCE) as pool:
        commits = pool.map(lambda version: read_commit(uri, identity, version), versions)
        return [file for apps, files in commits if but not in apps for file in files]


@lru_cache(maxsize=4096)
def read_commit(uri: str, identity: str, version: int) -> tuple[frozenset[str], tuple[AddedFile, ...]]:
    """Reads one commit, which never changes: application ids, and files with new rows.

    Args:
        uri: of the table.
        identity: of the table, which another one at the same place does not have.
        version: that the commit has made.
    """
    actions = read_actions(uri, version)
    apps = frozenset(action["txn"]["appId"] for action in actions if "txn" in action)
    added = [action["add"] for action in actions if "add" in action and action["add"]["dataChange"]]
    return apps, tuple(describe_added(uri, add) for add in added)


def read_actions(uri: str, version: int) -> list[dict[str, Any]]:
    """Reads all that one commit of a table did.

    Raises:
        StorageError: it is lost or damaged, or the storage refused.
    """
    place = uris.join(uri, LOG, f"{version:020d}.json")
    try:
        return [json.loads(line) for line in storage.read(place).splitlines() if line.strip()]
    except (ValueError, MissingObjectError) as error:
        raise make_log_error(uri, f"{place} is missing or no commit") from error


def describe_added(uri: str, add: dict[str, Any]) -> AddedFile:
    """Returns what counts of an ``add`` action."""
    found = json.loads(add.get("stats") or "{}")
    first, last = (found.get(name, {}).get("image_uri") for name in ("minValues", "maxValues"))
    return AddedFile(uris.join(uri, unquote(add["path"])), first, last)


def drop_committed(files: list[LocalFile], others: Sequence[AddedFile], *, keys: Sequence[str]) -> list[LocalFile]:
    """Returns local files without the rows that others have committed; the same files where there are none.

    Args:
        files: finished local files.
        others: what others have added.
        keys: columns that make two rows the same result; null equals null.
    """
    near = [other.uri for other in others if overlaps(other, files)]
    if not near:
        return files
    schema = pa.schema([SCORES.field(name) for name in keys])
    with Scratch() as scratch:
        scratch.insert("others", scan_parquet(near, columns=keys, schema=SCORES, small=True), schema=schema)
        scratch.insert("ours", number_rows(scan_local_files(files), keys), schema=schema.append(_NUMBER))
        same = " AND ".join(f"ours.{name} IS NOT DISTINCT FROM others.{name}" for name in keys)
        found = scratch.stream(f"SELECT number FROM ours SEMI JOIN others ON {same}", schema=pa.schema([_NUMBER]))
        doubled = np.concatenate([np.zeros(0, np.int64), *(batch.column(0).to_numpy() for batch in found)])
    if not len(doubled):
        return files
    return write_local_files(leave_out(scan_local_files(files), doubled), files[0].path.parent)


def overlaps(other: AddedFile, files: Iterable[LocalFile]) -> bool:
    """Tells whether a file of others may have photos that ours have too."""
    if other.first is None or other.last is None:
        return True
    ranges = [(file.statistics["minValues"]["image_uri"], file.statistics["maxValues"]["image_uri"]) for file in files]
    return any(first <= other.last and other.first <= last for first, last in ranges)


def number_rows(batches: Iterable[pa.RecordBatch], keys: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the key columns of a stream with the number of each row."""
    begin = 0
    for batch in batches:
        numbers = pa.array(np.arange(begin, begin + len(batch)))
        yield batch.select(list(keys)).append_column(_NUMBER, numbers)
        begin += len(batch)


def leave_out(batches: Iterable[pa.RecordBatch], numbers: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Yields a stream without the rows of some numbers."""
    begin = 0
    for batch in batches:
        kept = ~np.isin(np.arange(begin, begin + len(batch)), numbers)
        yield batch.filter(pa.array(kept))
        begin += len(batch)
