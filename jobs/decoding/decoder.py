"""Decoding in a process of its own: what a photo does to its decoder costs that photo alone.

The parent's side; jobs.decoding.decoder_child is the other. A Ray worker keeps one child for all its tasks, and itself
needs neither torch nor an image library. Photos and pixels go through memory files that both sides hold: a message on
the socket is small and whole, so a child may die at any moment and leave nothing half written behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from jobs.config import ScoringResources
from jobs.errors import JobError
from jobs.tables.boxes import Box
from jobs.tables.schema import Status
from model.config import DEFAULT_RULES, PixelRules

StoredSize = tuple[int | None, int | None]
"""Width and height of a photo in its file, in pixels; None where its header does not tell."""
CHILD_MODULE = "jobs.decoding.decoder_child"
_MESSAGE_BYTES = 65_536
MAX_PARTS = 128
"""Parts of a photo in one message; a photo with more is decoded again for the rest."""
MAX_TRIES = 2
"""A decoder can die of what is not the photo's fault, as when the machine runs out of memory."""
ANSWER_GRACE_S = 120.0
"""For the child's imports on a busy machine; beyond it the child itself is taken for dead."""


_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""Bytes. glibc then keeps the memory of one photo for the next, which saves 3 % of decoding in page faults."""


@dataclass(frozen=True)
class DecodeLimits:
    """What one photo may take.

    Attributes:
        timeout_s: seconds on the clock.
        memory_bytes: address space beyond that of an idle decoder.
    """

    timeout_s: float = 60.0
    memory_bytes: int = 4 * 2**30


DEFAULT_LIMITS = DecodeLimits()


def make_decode_limits(resources: ScoringResources) -> DecodeLimits:
    """Returns what one photo may take of its decoder."""
    memory_bytes = int(resources.decode_memory_gib * 2**30)
    return DecodeLimits(timeout_s=resources.decode_timeout_s, memory_bytes=memory_bytes)


@dataclass(frozen=True)
class DecodedPart:
    """What is asked of a photo, and where it goes: the photo or a box of it, as uint8 (3, H, W) in C order.

    Attributes:
        size: side in pixels of the square, or of a tile, see ``rules``.
        at: first byte to write in the file of pixels.
        rules: how it becomes pixels.
        box: part of the photo, in pixels as stored; None is all of it.
    """

    size: int
    at: int
    rules: PixelRules = DEFAULT_RULES
    box: Box | None = None


class UndecodedError(Exception):
    """A photo gave no pixels; its row says why.

    Attributes:
        status: unreadable if the bytes are no photo, failed if decoding them went wrong.
        code: reason code.
        detail: one sentence.
    """

    def __init__(self, status: Status, code: str, detail: str) -> None:
        """Keeps the three."""
        super().__init__(status, code, detail)
        self.status, self.code, self.detail = status, code, detail


@cache
def share_decoder(limits: DecodeLimits, number: int = 0) -> Decoder:
    """Returns this process's decoder with these limits and this number, one for all tasks that run in it."""
    return Decoder(limits)


class Decoder:
    """One child process and the way to it. It ends when this process does, even by SIGKILL."""

    def __init__(self, limits: DecodeLimits) -> None:
        """Starts nothing yet."""
        self._limits = limits
        self.photo_file = os.memfd_create("photo")
        self.child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._is_ready = False
        self.requests_sent = 0

    def start(self) -> None:
        """Starts the child unless there is one; it imports while the caller fetches."""
        if self.child is not None:
            return
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        descriptors = (theirs.fileno(), self.photo_file)
        self.child = subprocess.Popen(  # noqa: S603  # our own module, with numbers as arguments
            [sys.executable, "-P", "-m", CHILD_MODULE, *map(str, descriptors)],
            pass_fds=descriptors,
            env=os.environ | _ALLOCATION | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._is_ready = False

    def stop(self) -> int:
        """Ends the child, unless it has ended, and waits for it.

        Returns:
            its exit code, -N for signal N; 0 if there was none.
        """
        if self.child is None or self._channel is None:
            return 0
        self.child.kill()
        exit_code = self.child.wait()
        self._channel.close()
        self.child = self._channel = None
        return exit_code

    async def decode(
        self, data: bytes | memoryview, parts: Sequence[DecodedPart], *, max_pixels: int, into: int
    ) -> tuple[StoredSize, list[UndecodedError | None]]:
        """Decodes parts of one photo into a file, as `model.image.decode_parts` gives them.

        One photo at a time.

        Args:
            data: the object's bytes.
            parts: what is wanted of it.
            max_pixels: largest width x height decoded.
            into: descriptor of a memory file.

        Returns:
            Width and height as stored, and for each part None, or why it alone could not be had.

        Raises:
            UndecodedError: the photo's own trouble.
            JobError: no decoder can be started here, whatever the photo.
        """
        size: StoredSize = (None, None)
        problems: list[UndecodedError | None] = []
        for first in range(0, len(parts), MAX_PARTS):
            answer = await self._ask_twice(data, parts[first : first + MAX_PARTS], max_pixels=max_pixels, into=into)
            size = answer["width"], answer["height"]
            problems += [None if found is None else self._make_error(found) for found in answer["parts"]]
        return size, problems

    async def _ask_twice(
        self, data: bytes | memoryview, parts: Sequence[DecodedPart], *, max_pixels: int, into: int
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for _ in range(MAX_TRIES):
            answer = await self._ask(data, parts, max_pixels=max_pixels, into=into)
            if answer["status"] == "decoded":
                return answer
            if answer["status"] != "died" or answer["exit_code"] == -signal.SIGALRM:
                break
        raise self._make_error(answer)

    def _make_error(self, answer: dict[str, Any]) -> UndecodedError:
        if answer["status"] == "refused":
            return UndecodedError(Status.UNREADABLE, answer["code"], answer["detail"])
        if answer["status"] == "failed":
            return UndecodedError(Status.FAILED, answer["code"], answer["detail"])
        ending = describe_exit(answer["exit_code"])
        if answer["exit_code"] == -signal.SIGALRM:
            detail = f"not decoded after {self._limits.timeout_s:g} s, the limit of --scoring.decode-timeout-s"
            return UndecodedError(Status.FAILED, "decode_timeout", detail)
        if answer.get("never_ready"):
            raise JobError(f"needed a process that decodes, it ended at its start with {ending}: see its log")
        return UndecodedError(Status.FAILED, "decoder_died", f"the decoder ended with {ending}, {MAX_TRIES} times")

    async def _ask(
        self, data: bytes | memoryview, parts: Sequence[DecodedPart], *, max_pixels: int, into: int
    ) -> dict[str, Any]:
        """Sends one request and returns its answer; a child that has ended answers ``died``."""
        self.start()
        os.ftruncate(self.photo_file, len(data))
        os.pwrite(self.photo_file, data, 0)
        self.requests_sent += 1
        request = {
            "number": self.requests_sent,
            "photo_bytes": len(data),
            "parts": [asdict(part) for part in parts],
            "max_pixels": max_pixels,
            "timeout_s": self._limits.timeout_s,
            "memory_bytes": self._limits.memory_bytes,
        }
        try:
            async with asyncio.timeout(self._limits.timeout_s + ANSWER_GRACE_S):
                return await self._exchange(request, into=into)
        except (OSError, EOFError, TimeoutError):
            return self._bury()

    async def _exchange(self, request: dict[str, Any], *, into: int) -> dict[str, Any]:
        loop, channel = asyncio.get_running_loop(), self._channel
        if channel is None:
            raise EOFError
        # The file goes along with every request, for the worker that takes it may be another than the last one's.
        socket.send_fds(channel, [json.dumps(request).encode()], [into])
        while message := await loop.sock_recv(channel, _MESSAGE_BYTES):
            answer: dict[str, Any] = json.loads(message)
            self._is_ready = True
            # Other numbers: the child is ready, or a request that was given up, or a death while idle.
            if answer["number"] == request["number"]:
                return answer
        raise EOFError

    def _bury(self) -> dict[str, Any]:
        """Returns the answer that stands for a child that went away as a whole."""
        never_ready = not self._is_ready
        return {"status": "died", "exit_code": self.stop(), "never_ready": never_ready}


def describe_exit(exit_code: int) -> str:
    """Describes how a process ended, as a person reads it."""
    return f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
