"""Who works on a run: one object in its staging, so that two runs with the same id never work at once.

No clocks of two machines are compared. The holder renews the object every few seconds; another that wants the run
either knows the holder's process to be dead (same machine), or watches the object: if it changes, its holder is alive,
and if it does not within TTL_S, the holder has gone and the lease is taken over. All writes are conditional.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from jobs.errors import ConflictError, JobError, MissingObjectError, RequestError, StorageError
from jobs.storage import objects as storage
from jobs.storage.lease_holder import Holder

TTL_S = 60.0
"""Without renewal for so long, the holder counts as gone."""
RENEWAL_INTERVAL_S = 10.0
"""Well below the TTL, so that a few failed renewals in a row are no loss."""
POLL_INTERVAL_S = 1.0


class Lease:
    """A lease that is held; a thread renews it until `release`."""

    def __init__(self, uri: str, holder: Holder, etag: str) -> None:
        """Begins to renew."""
        self._uri, self.holder, self._etag = uri, holder, etag
        self._renewed_at = time.monotonic()
        self._writing, self._stop = threading.Lock(), threading.Event()
        self.is_lost = False
        self._tell_of_loss: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def on_loss(self, tell: Callable[[], None]) -> None:
        """Calls ``tell`` when the lease is lost, in another thread, or at once if it is lost already.

        It should end the work under way: without, the work goes on until `confirm`, and is then of no use.
        """
        self._tell_of_loss = tell
        if self.is_lost:
            tell()

    def confirm(self) -> None:
        """Renews now: what follows may only be done by the holder.

        Raises:
            JobError: another has taken over.
            StorageError: the storage did not answer.
        """
        if self.is_lost:
            raise self.make_loss_error()
        try:
            self._renew()
        except (ConflictError, MissingObjectError):
            raise self.make_loss_error() from None

    def release(self) -> None:
        """Stops renewing and deletes the object if it is still ours."""
        self._stop.set()
        self._thread.join()
        if not self.is_lost:
            storage.delete(self._uri)

    def make_loss_error(self) -> JobError:
        """Returns the error to end with, once another has taken over or may have."""
        self.is_lost = True
        return JobError(
            f"the lease {self._uri} went to another process, or could not be renewed for {TTL_S:.0f} s so that one may "
            "have taken it: the same command continues the run, unless that one does"
        )

    def _renew(self) -> None:
        with self._writing:
            self.holder = self.holder.model_copy(update={"renewals": self.holder.renewals + 1})
            try:
                self._etag = storage.write(self._uri, self.holder.model_dump_json().encode(), if_etag=self._etag)
            except ConflictError:
                self._etag = read_etag_if_ours(self._uri, self.holder)
            self._renewed_at = time.monotonic()

    def _keep(self) -> None:
        while not self._stop.wait(RENEWAL_INTERVAL_S):
            try:
                self._renew()
            except (ConflictError, MissingObjectError):
                self.is_lost = True
            except StorageError:
                self.is_lost = time.monotonic() - self._renewed_at > TTL_S  # others may take it from then on
            if self.is_lost:
                self._tell_of_loss()
                return


@contextmanager
def hold_lease(uri: str) -> Iterator[Lease]:
    """Holds the lease at ``uri`` while its block runs.

    Raises:
        RequestError: another process that is alive holds it.
        JobError: it was lost within the block.
        StorageError: the storage cannot be reached.
    """
    lease = take_lease(uri)
    try:
        yield lease
    except BaseException as error:
        is_lost = lease.is_lost
        with suppress(StorageError):  # what ended the work is told, not that its lease stays behind
            lease.release()
        if is_lost and isinstance(error, JobError):  # it ended because it was told so
            raise lease.make_loss_error() from None
        raise
    lease.release()


def take_lease(uri: str) -> Lease:
    """Takes the lease at ``uri``, also one whose holder has gone."""
    holder = Holder.this_process()
    data = holder.model_dump_json().encode()
    while True:
        try:
            return Lease(uri, holder, storage.write(uri, data, if_absent=True))
        except ConflictError:
            pass
        with suppress(ConflictError, MissingObjectError):
            return Lease(uri, holder, read_etag_if_ours(uri, holder))
        try:
            etag = wait_until_abandoned(uri)
            return Lease(uri, holder, storage.write(uri, data, if_etag=etag))
        except (ConflictError, MissingObjectError):
            continue  # released or taken over in the meantime: look again


def read_etag_if_ours(uri: str, holder: Holder) -> str:
    """Returns the entity tag of a lease that ``holder`` wrote, although the store refused the write.

    A write whose answer got lost is sent again by the client, and then conflicts with itself.

    Raises:
        ConflictError: another holds it.
        MissingObjectError: nobody does.
    """
    data, etag = storage.read_with_etag(uri)
    with suppress(ValueError):
        if Holder.model_validate_json(data).owner == holder.owner:
            return etag
    raise ConflictError(f"{uri} is held by another")


def wait_until_abandoned(uri: str) -> str:
    """Waits until the holder of a lease has certainly gone; returns the lease's entity tag.

    Raises:
        RequestError: its holder is alive.
        MissingObjectError: it was released.
    """
    data, first_etag = storage.read_with_etag(uri)
    holder = parse_holder(uri, data)
    is_alive, began = holder.is_alive(), time.monotonic()
    if is_alive is None:
        print(f"the run is held by {holder}: waiting up to {TTL_S:.0f} s for a sign of life", flush=True)
    while is_alive is None and time.monotonic() - began < TTL_S:
        time.sleep(POLL_INTERVAL_S)
        is_alive = True if storage.read_with_etag(uri)[1] != first_etag else None
    if is_alive:
        raise RequestError(
            f"this run is under way: {holder} works on it (lease {uri}); wait for it, stop it, or take a new --run-id"
        )
    return first_etag


def parse_holder(uri: str, data: bytes) -> Holder:
    """Parses a lease's object, or says that it is damaged.

    Raises:
        RequestError: it is damaged.
    """
    try:
        return Holder.model_validate_json(data)
    except ValueError as error:
        raise RequestError(f"{uri} is damaged: expected the lease of a run; delete it") from error
