"""Ray tasks, a limited number at a time: what comes next starts when something is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

Name = TypeVar("Name")


def run_tasks(names: Sequence[Name], start: Callable[[Name], Any], *, tasks: int) -> Iterator[tuple[Name, Any]]:
    """Starts Ray tasks in order, ``tasks`` at a time; yields name and reference of each that is done.

    Args:
        names: what to start.
        start: starts one and returns its reference.
        tasks: most that run at a time.
    """
    waiting, running = list(names), dict[Any, Name]()
    while waiting or running:
        while waiting and len(running) < tasks:
            name = waiting.pop(0)
            running[start(name)] = name
        (done,), _ = ray.wait(list(running))
        yield running.pop(done), done
