"""What this process and those that it has started cost: CPU seconds and memory, from Linux's /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLE_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Usage:
    """One look at a tree of processes."""

    cpu_s: float
    """Of all of them, including those that have ended and been waited for."""
    others_rss_bytes: int
    """Resident memory of all but the first, less what they share with one another."""
    largest_other_rss_bytes: int
    processes: int


def usage(root: int) -> Usage:
    """Looks at a process and its descendants.

    Args:
        root: its process id.
    """
    fields = _fields()
    tree = _tree(root, fields)
    ticks = sum(int(value) for pid in tree if pid in fields for value in fields[pid][11:15])
    private = [private_bytes(pid) for pid in tree if pid != root]
    return Usage(ticks / _TICKS_PER_S, sum(private), max(private, default=0), len(tree))


def process_ids(root: int) -> list[int]:
    """A process and its descendants, ``root`` first."""
    return _tree(root, _fields())


def _tree(root: int, fields: Mapping[int, Sequence[str]]) -> list[int]:
    tree, waiting = [root], [root]
    while waiting:
        parent = waiting.pop()
        below = [pid for pid, found in fields.items() if int(found[1]) == parent]
        tree += below
        waiting += below
    return tree


def _fields() -> dict[int, list[str]]:
    """Process id -> fields of its stat, see `_stat`."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: found for pid in pids if (found := _stat(pid)) is not None}


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third on: state, parent, ...; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None


def private_bytes(pid: int) -> int:
    """Resident memory that a process shares with no other, 0 if it is gone."""
    try:
        _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


class Watch:
    """Samples the memory of this process's descendants while its ``with`` block runs; see ``peak`` afterwards."""

    def __init__(self) -> None:
        """Not watching yet."""
        self.peak_others_bytes = 0
        self.peak_largest_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            now = usage(os.getpid())
            self.peak_others_bytes = max(self.peak_others_bytes, now.others_rss_bytes)
            self.peak_largest_bytes = max(self.peak_largest_bytes, now.largest_other_rss_bytes)
