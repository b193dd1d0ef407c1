"""What a process and those that it has started cost: CPU seconds and memory of their own."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import psutil

SAMPLE_INTERVAL_S = 1.0


def list_processes(root: int) -> list[psutil.Process]:
    """Lists a process and its descendants, the process ``root`` first."""
    first = psutil.Process(root)
    return [first, *first.children(recursive=True)]


def measure_cpu_s(root: int) -> float:
    """Returns the CPU seconds of a process and its descendants, with those that have ended and been waited for."""
    total = 0.0
    for process in list_processes(root):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure_private_bytes(process: psutil.Process) -> int:
    """Returns the resident memory that a process shares with no other, 0 if it is gone.

    Not psutil's ``uss``: that counts pages of Ray's object store as private while one process alone has touched them.
    """
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - memory.shared)


class Sampler(ABC):
    """Looks at this process and its descendants again and again while its ``with`` block runs."""

    def __init__(self) -> None:
        """Prepares the thread that samples."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        """Starts sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            self.look()

    @abstractmethod
    def look(self) -> None:
        """Takes one sample."""


class MemorySampler(Sampler):
    """Samples the memory of this process's descendants while its ``with`` block runs.

    Attributes:
        peak_total_bytes: the most that all of them had together, less what they share.
        peak_largest_bytes: the most that one of them had.
    """

    def __init__(self) -> None:
        """Starts at nothing."""
        super().__init__()
        self.peak_total_bytes = 0
        self.peak_largest_bytes = 0

    def look(self) -> None:
        """Takes one sample."""
        sizes = [measure_private_bytes(process) for process in list_processes(os.getpid())[1:]]
        self.peak_total_bytes = max(self.peak_total_bytes, sum(sizes))
        self.peak_largest_bytes = max(self.peak_largest_bytes, *sizes, 0)


class CpuSampler(Sampler):
    """Adds up the CPU of this process and its descendants while its ``with`` block runs, also of those that end in it.

    What a killed worker's child has used is otherwise lost: nobody who is counted waits for it. The last interval of a
    process that ends is not seen.

    Attributes:
        cpu_s: user and system seconds, once the block is left.
    """

    def __init__(self) -> None:
        """Starts at nothing."""
        super().__init__()
        self.cpu_s = 0.0
        self._first: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], float] = {}

    def __enter__(self) -> Self:
        """Starts sampling; what has been used until now does not count."""
        self.look()
        self._first = dict(self._last)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops sampling and adds up."""
        super().__exit__(kind, error, trace)
        self.look()
        self.cpu_s = sum(last - self._first.get(process, 0.0) for process, last in self._last.items())

    def look(self) -> None:
        """Takes one sample."""
        for process in list_processes(os.getpid()):
            try:
                times = process.cpu_times()
                self._last[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
