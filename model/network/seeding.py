"""Reproducible randomness that leaves the process's global random generators as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


@contextmanager
def seed_cpu_generator(seed: int) -> Iterator[None]:
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


class Stream(IntEnum):
    """What a random draw is for: each purpose has a stream of its own.

    With a sum like seed + epoch, seeds 0 and 1 would share all epochs but one.
    """

    EPOCHS = 0
    SCALING = 1
    DROPOUT = 2
    CALIBRATION = 3
    ATTENTION = 4
    WATCH = 5
    GATES = 6


def create_stream(seed: int, purpose: Stream, *numbers: int) -> np.random.Generator:
    """Creates the generator of one purpose and, as ``numbers`` say, one epoch or worker."""
    return np.random.default_rng([seed, int(purpose), *numbers])


@contextmanager
def seed_device_generator(device: torch.device, *, seed: int) -> Iterator[None]:
    """Seeds the generator that dropout on ``device`` takes, and gives it its state back; no other is touched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
