"""Commits a run's slices in their order, while the pipeline goes on with the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from jobs.cluster.run_log import RunLog
from jobs.errors import JobError, one_line
from jobs.results.commit import find_next_slice
from jobs.scoring.preparation import StagedRun
from jobs.scoring.publication.publish import publish_slice
from jobs.scoring.publication.slices import RunSlice, divide_run
from jobs.scoring.publication.staged_files import StagedFiles
from jobs.scoring.record import make_unfinished, write_unfinished
from jobs.scoring.run_folder import RunFolder
from jobs.storage.lease import Lease
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import MANIFEST, STAGED

LOOK_INTERVAL_S = 5.0
"""How often the checkpoint is listed: a request or two, against slices of many minutes."""


class SliceCommitter:
    """What is left of a run's slices to commit.

    Args:
        folder: of the run.
        staged: what is to score.
        lease: confirmed before each commit.
        log: told of each commit.

    Attributes:
        seconds: spent on commits so far.
        dropped: rows left out so far, for another run has committed the same in the meantime.
    """

    def __init__(self, folder: RunFolder, staged: StagedRun, *, lease: Lease, log: RunLog) -> None:
        """Begins after the last slice that an earlier try has committed."""
        self._folder, self._staged, self._lease, self._log = folder, staged, lease, log
        self.slices = divide_run(staged.to_score, staged.slice_photos)
        self._next = max(0, find_next_slice(folder.results, folder.run_id) - staged.first_slice)
        self._files = StagedFiles(folder, staged.to_score)
        self.seconds, self.dropped = 0.0, 0

    @property
    def left(self) -> list[RunSlice]:
        """The slices that are not committed yet, in order."""
        return self.slices[self._next :]

    @contextmanager
    def follow_pipeline(self, stop_pipeline: Callable[[str], None]) -> Iterator[None]:
        """Commits each slice as soon as all its rows are staged, in a thread, while the block runs.

        Args:
            stop_pipeline: called with the reason if a commit fails; the block should end then.

        Raises:
            JobError: what the commit failed with.
        """
        stop, failures = threading.Event(), list[BaseException]()

        def follow() -> None:
            try:
                while not stop.wait(LOOK_INTERVAL_S):
                    self._commit_staged(stop)
            except BaseException as error:
                failures.append(error)
                stop_pipeline(one_line(error))

        thread = threading.Thread(target=follow, name="committer", daemon=True)
        # The last slice is complete when the pipeline ends, so nobody need look for it.
        if len(self.left) > 1:
            thread.start()
        try:
            yield
        except JobError:
            if failures:
                raise failures[0] from None
            raise
        finally:
            stop.set()
            if thread.ident is not None:
                thread.join()
        if failures:
            raise failures[0]

    def commit_rest(self) -> None:
        """Commits what is left, whatever has come back: rows that have not are ``failed``."""
        if self.left:
            self._files.look()
        while self.left:
            self.commit_next(self._read_staged(self.left[0]))

    def commit_next(self, staged: Iterable[pa.RecordBatch]) -> None:
        """Commits the first slice that is left, with its STAGED rows."""
        part, began = self.left[0], time.monotonic()
        self._lease.confirm()
        manifest = self._folder.list_manifest_parts(part.first, part.end)
        done = publish_slice(
            part,
            staged,
            manifest=lambda: scan_parquet(manifest, columns=MANIFEST.names, schema=MANIFEST),
            plan=self._staged.plan,
            folder=self._folder,
            slice_number=self._staged.first_slice + part.number,
            run_date=self._staged.started_at.date(),
            known_since=self._staged.known_since,
        )
        self._next = part.number + 1
        self.note_progress()
        self.dropped += done.dropped
        self.seconds += time.monotonic() - began
        told = {"slice": part.number, "slices": len(self.slices), "rows": done.rows, "dropped": done.dropped}
        self._log.event("slice_committed", told | {"version": done.version})
        if len(self.slices) > 1:
            print(f"slice {part.number + 1} of {len(self.slices)}: {done.rows} rows are in the table", flush=True)

    def note_progress(self) -> None:
        """Writes the unfinished record: if the run is killed and never continued, it says what the rows are of."""
        staged = self._staged
        record = make_unfinished(
            staged.plan,
            config=staged.config,
            listed=staged.listed,
            to_score=staged.to_score,
            started_at=staged.started_at,
            slices=len(self.slices),
            committed_slices=self._next,
        )
        write_unfinished(record, self._folder)

    def _commit_staged(self, stop: threading.Event) -> None:
        self._files.look()
        while self.left and self._files.has_all(self.left[0]) and not stop.is_set():
            self.commit_next(self._read_staged(self.left[0]))

    def _read_staged(self, part: RunSlice) -> Iterator[pa.RecordBatch]:
        return scan_parquet(self._files.list_files(part), columns=STAGED.names, schema=STAGED, small=True)
