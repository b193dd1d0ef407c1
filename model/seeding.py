"""Reproducible initialisation that leaves the process's global random generators as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator inside the block, then restores torch's and numpy's global generators.

    Numpy's is restored because FrEIA's ``PermuteRandom`` reseeds it. ``torch.manual_seed`` is avoided: it would reseed
    the generators of every accelerator too, which nothing here restores.

    Args:
        seed: non-negative, below 2**64.
    """
    numpy_state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
