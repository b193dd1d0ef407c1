"""Whose turn it is, among the batches that are fetched and decoded in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from jobs.decoding.byte_budget import ByteBudget
from jobs.decoding.decoder import Decoder

MAX_WAITING_BYTES = 2**28
"""Of all photos that are fetched and wait to be decoded, in one event loop; a larger photo waits alone."""


class Turns:
    """Whose turn it is, for all batches of one event loop: GETs under way, bytes, decoders.

    Args:
        concurrency: GETs under way at once.
        decoders: the first is preferred; others start when they are needed.
    """

    def __init__(self, concurrency: int, decoders: Sequence[Decoder]) -> None:
        """Begins with nothing under way."""
        self.fetching = asyncio.Semaphore(concurrency)
        self.budget = ByteBudget(MAX_WAITING_BYTES)
        self._idle = asyncio.LifoQueue[Decoder]()
        for decoder in reversed(decoders):
            self._idle.put_nowait(decoder)
        self.boxes = asyncio.Lock()
        """Of batches with boxes: the next one may begin with what the one before has kept."""

    @asynccontextmanager
    async def take_decoder(self) -> AsyncIterator[Decoder]:
        """Waits for an idle decoder and lends it to the block."""
        decoder = await self._idle.get()
        try:
            yield decoder
        finally:
            self._idle.put_nowait(decoder)
