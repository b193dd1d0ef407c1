"""How many bytes of photos may wait in memory at once, whoever fetches them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """Room for bytes within one event loop, given out in the order of asking.

    Args:
        total_bytes: how many bytes may be held at once. A photo that is larger is held alone.
    """

    def __init__(self, total_bytes: int) -> None:
        """Begins with all of it free."""
        self._total_bytes = self._free_bytes = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Holds room for ``size_bytes`` while its block runs; waits until there is so much."""
        asked = min(size_bytes, self._total_bytes)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, turn))
        self._serve()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free_bytes += asked
            else:
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
            self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free_bytes:
            asked, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._free_bytes -= asked
                turn.set_result(None)
