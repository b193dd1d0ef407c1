"""A private database on local disk, for what is larger than memory: sorting, joining, counting.

DuckDB, fed and drained with Arrow record batches, so that storage stays with jobs.storage and no credential comes here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from jobs.errors import JobError, one_line
from jobs.tables.parquet import BATCH_ROWS, cast_batches

MEMORY_LIMIT = "400MB"
"""What DuckDB may hold before it spills; beside it stand Arrow's batches, Ray and torch."""
THREADS = 2
"""Each sorts in buffers of its own, so threads cost memory; the driver has little else to do meanwhile."""


_PREFIX, _LOCK = "attentdiffernet-scratch-", "lock"
MIN_ABANDONED_AGE_S = 60.0


class Scratch:
    """A database in a folder that only this user can read, gone when the ``with`` block ends, however it ends."""

    def __init__(self) -> None:
        """Makes the folder, under TMPDIR, and opens the database in it.

        Raises:
            JobError: the local disk is full.
        """
        import duckdb  # 0.1 s of CPU, which whoever only reads rows need not spend

        remove_abandoned(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = (self.folder / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._failed = duckdb.Error
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "threads": min(THREADS, os.cpu_count() or 1),
            "temp_directory": str(self.folder / "spilled"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            self._connection: Any = duckdb.connect(str(self.folder / "scratch.duckdb"), config=settings)
        except duckdb.Error as error:
            self._remove()
            raise self._explain(error) from error

    def __enter__(self) -> Self:
        """Returns the database, which is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the database and removes the folder."""
        self._connection.close()
        self._remove()

    def _remove(self) -> None:
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def insert(self, table: str, batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, only: str = "") -> None:
        """Adds a stream of rows to a table, which is made if it is not there.

        Args:
            table: its name.
            batches: rows with the columns of ``schema``.
            schema: the table's columns.
            only: SQL after ``FROM incoming`` that says which rows are kept; the others never reach the disk.

        Raises:
            JobError: the local disk is full.
        """
        failures: list[Exception] = []
        reader = pa.RecordBatchReader.from_batches(schema, note_failures(cast_batches(batches, schema), failures))
        self._connection.register("incoming", reader)
        try:
            self.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM incoming LIMIT 0")
            self.execute(f"INSERT INTO {table} SELECT incoming.* FROM incoming {only}")
        except Exception:
            # The stream's own error, which DuckDB wraps in one of its own, is the one to show.
            if failures:
                raise failures[0] from None
            raise
        finally:
            self._connection.unregister("incoming")

    def execute(self, sql: str) -> None:
        """Runs a statement."""
        self._execute(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a query whose answer is small."""
        rows: list[tuple[Any, ...]] = self._execute(sql).fetchall()
        return rows

    def stream(self, sql: str, *, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Streams the rows of a query with the columns of ``schema``; other statements may run meanwhile."""
        try:
            yield from cast_batches(self._connection.cursor().sql(sql).to_arrow_reader(BATCH_ROWS), schema)
        except self._failed as error:
            raise self._explain(error) from error

    def _execute(self, sql: str) -> Any:
        try:
            return self._connection.execute(sql)
        except self._failed as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> JobError:
        return JobError(
            f"sorting on local disk failed: {one_line(error)[:300]}; it needs about 1 kB per photo under "
            f"{self.folder.parent}: make room there, or set TMPDIR to a larger disk"
        )


def remove_abandoned(place: Path) -> None:
    """Removes what killed processes of this user have left: folders whose lock nobody holds any more."""
    for lock in place.glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            if lock.stat().st_uid != os.getuid() or time.time() - lock.stat().st_mtime < MIN_ABANDONED_AGE_S:
                continue
            with lock.open("r+") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            continue  # in use, or gone already


def note_failures(batches: Iterator[pa.RecordBatch], failures: list[Exception]) -> Iterator[pa.RecordBatch]:
    """Yields the batches; what the stream raises is added to ``failures`` too."""
    try:
        yield from batches
    except Exception as error:
        failures.append(error)
        raise
