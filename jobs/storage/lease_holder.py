"""Who holds a lease: a process, told apart from all others, and whether it lives."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict


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
        """Returns this process as the holder, from now on."""
        return cls(
            owner=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=read_machine_id(),
            pid=os.getpid(),
            pid_since=read_start_ticks(os.getpid()) or 0,
            since=datetime.now(UTC),
        )

    def is_alive(self) -> bool | None:
        """Returns whether the process lives; None where that cannot be told from here."""
        if self.machine != read_machine_id():
            return None
        return read_start_ticks(self.pid) == self.pid_since

    def __str__(self) -> str:
        """Names the holder in messages."""
        return f"process {self.pid} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


def read_machine_id() -> str:
    """Reads what tells this boot and process namespace from all others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def read_start_ticks(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None if it has ended.

    Field 22 of ``/proc/<pid>/stat``, see proc(5).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
