"""Clients of storage made anew, for tests with settings or credentials of their own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MODULES = ("jobs.storage", "jobs.results")


@contextmanager
def fresh_clients() -> Iterator[None]:
    """Forgets every client, setting and open table that storage and results keep, before and after the block."""
    forget_clients()
    yield
    forget_clients()


def forget_clients() -> None:
    """Empties the caches of their modules: what is asked for next is made with the environment of now."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_MODULES):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
                elif isinstance(value, threading.local):
                    vars(value).clear()
