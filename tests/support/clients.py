"""Clients of storage made anew, for tests with settings or credentials of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MODULES = ("jobs.storage", "jobs.results.access")


@contextmanager
def fresh_clients() -> Iterator[None]:
    """Forgets every client and setting that storage keeps, before and after the block."""
    forget_clients()
    yield
    forget_clients()


def forget_clients() -> None:
    """Empties the caches of storage's modules: what is asked for next is made with the environment of now."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_MODULES):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
