"""Who works on a run: one object in its staging, so that two runs with the same id never work at once.

No clocks of two machines are compared. The holder renews the object every few seconds; another that wants the run
either knows the holder's process to be dead (same machine), or watches the object: if it changes, its holder is alive,
and if it does not within TTL_S, the holder has gone and the lease is taken over. All writes are conditional.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from pydantic import BaseModel, ConfigDict

from jobs import storage
from jobs.errors import ConflictError, JobError, MissingObjectError, RequestError, StorageError

TTL_S = 60.0
"""Without renewal for so long, the holder counts as gone."""
RENEWAL_S = 10.0
"""Well below the TTL, so that a few failed renewals in a row are no loss."""
_POLL_S = 1.0


class Holder(BaseModel):
    """Who holds a lease.

    Attributes:
        owner: unique to one try of a run.
        host: for people.
        machine: boot and process namespace; only within the same one does ``pid`` say anything.
        pid: process id.
        pid_since: start of that process in clock ticks since boot, because ids are used again.
        since: when the lease was taken, by the holder's clock, for people.
        renewals: counts up, so that every renewal changes the object.
    """

    model_config = ConfigDict(frozen=True)

    owner: str
    host: str
    machine: str
    pid: int
    pid_since: int
    since: datetime
    renewals: int = 0

    @classmethod
    def this_process(cls) -> Holder:
        """This process, from now on."""
        return cls(
            owner=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            pid_since=_started(os.getpid()) or 0,
            since=datetime.now(UTC),
        )

    def is_alive(self) -> bool | None:
        """Whether the process lives; None where that cannot be told from here."""
        if self.machine != _machine():
            return None
        return _started(self.pid) == self.pid_since

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class Lease:
    """A lease that is held; a thread renews it until `release`."""

    def __init__(self, uri: str, holder: Holder, etag: str) -> None:
        """Begins to renew."""
        self._uri, self._holder, self._etag = uri, holder, etag
        self._renewed_at = time.monotonic()
        self._writing, self._stop = threading.Lock(), threading.Event()
        self.is_lost = False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Renews now: what follows may only be done by the holder.

        Raises:
            JobError: another has taken over.
            StorageError: the storage did not answer.
        """
        if self.is_lost:
            raise self.lost()
        try:
            self._renew()
        except (ConflictError, MissingObjectError):
            raise self.lost() from None

    def release(self) -> None:
        """Stops renewing and deletes the object if it is still ours."""
        self._stop.set()
        self._thread.join()
        if not self.is_lost:
            storage.delete(self._uri)

    def lost(self) -> JobError:
        """The error to end with, once another has taken over."""
        self.is_lost = True
        return JobError(
            f"the lease {self._uri} went to another process while this one could not renew it for {TTL_S:.0f} s: that "
            "one continues the run"
        )

    def _renew(self) -> None:
        with self._writing:
            self._holder = self._holder.model_copy(update={"renewals": self._holder.renewals + 1})
            self._etag = storage.write(self._uri, self._holder.model_dump_json().encode(), if_etag=self._etag)
            self._renewed_at = time.monotonic()

    def _keep(self) -> None:
        while not self._stop.wait(RENEWAL_S):
            try:
                self._renew()
            except (ConflictError, MissingObjectError):
                self.is_lost = True
            except StorageError:
                self.is_lost = time.monotonic() - self._renewed_at > TTL_S  # others may take it from then on
            if self.is_lost:
                # A real signal, to that thread: only that wakes it from whatever it waits for.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return


@contextmanager
def held(uri: str) -> Iterator[Lease]:
    """Holds the lease at ``uri`` while its block runs.

    Raises:
        RequestError: another process that is alive holds it.
        JobError: it was lost within the block.
        StorageError: the storage cannot be reached.
    """
    lease = _taken(uri)
    try:
        with _interrupted_once_lost(lease):
            yield lease
    except KeyboardInterrupt:
        if lease.is_lost:
            raise lease.lost() from None
        raise
    finally:
        lease.release()


@contextmanager
def _interrupted_once_lost(lease: Lease) -> Iterator[None]:
    """Lets the lease's SIGINT through where the process ignores that signal, as one does that a shell runs with &."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: FrameType | None) -> None:
        if lease.is_lost or before == signal.SIG_DFL:
            raise KeyboardInterrupt
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _taken(uri: str) -> Lease:
    holder = Holder.this_process()
    data = holder.model_dump_json().encode()
    while True:
        try:
            return Lease(uri, holder, storage.write(uri, data, if_absent=True))
        except ConflictError:
            pass
        try:
            etag = _abandoned(uri)
            return Lease(uri, holder, storage.write(uri, data, if_etag=etag))
        except (ConflictError, MissingObjectError):
            continue  # released or taken over in the meantime: look again


def _abandoned(uri: str) -> str:
    """The entity tag of a lease whose holder has gone; waits until that is certain.

    Raises:
        RequestError: its holder is alive.
        MissingObjectError: it was released.
    """
    data, first_etag = storage.read_with_etag(uri)
    holder = _read(uri, data)
    is_alive, began = holder.is_alive(), time.monotonic()
    if is_alive is None:
        print(f"the run is held by {holder}: waiting up to {TTL_S:.0f} s for a sign of life", flush=True)
    while is_alive is None and time.monotonic() - began < TTL_S:
        time.sleep(_POLL_S)
        is_alive = True if storage.read_with_etag(uri)[1] != first_etag else None
    if is_alive:
        raise RequestError(
            f"this run is under way: {holder} works on it (lease {uri}); wait for it, stop it, or take a new --run-id"
        )
    return first_etag


def _read(uri: str, data: bytes) -> Holder:
    try:
        return Holder.model_validate_json(data)
    except ValueError as error:
        raise RequestError(f"{uri} is damaged: expected the lease of a run; delete it") from error


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> int | None:
    """Start of a process in clock ticks since boot (field 22 of proc(5)'s stat), or None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
