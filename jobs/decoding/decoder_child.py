"""The process that decodes photos for jobs.decoding.decoder, so that a file which kills its decoder kills nothing else.

``python -m jobs.decoding.decoder_child SOCKET PHOTO``, two inherited file descriptors: a SOCK_SEQPACKET socket for
one JSON object per message, and a memory file for the bytes of one photo. The file for its pixels comes with the
message.

Two processes: the *nursery* imports torch once and forks the *worker*, so that another worker after a death takes
milliseconds and not the seconds of an import. The kernel enforces the limits: SIGALRM ends a worker at the time limit,
and an allocation beyond the memory limit fails.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from model.image import ImageError, Part, decode_parts
from model.pictures.header import read_stored_size
from model.pictures.levels import Levels
from model.pictures.rules import PixelRules, Tiles
from model.process import prepare_process

MESSAGE_BYTES = 65_536
MAX_DETAIL = 400
"""Longest detail of an answer, in characters, so that one with a reason for each part is one message."""
_PR_SET_PDEATHSIG = 1
_NUMBER = struct.Struct("<q")


def main(argv: list[str]) -> None:
    """Keeps one worker alive until the parent is gone: the nursery."""
    channel, photo = socket.socket(fileno=int(argv[0])), int(argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    prepare_process()
    current = mmap.mmap(-1, _NUMBER.size)  # the number of the request that the worker has taken, shared with it
    send(channel, number=0, status="ready")
    while True:
        pid = os.fork()
        if pid == 0:
            answer_requests(channel, photo=photo, current=current)
        exit_code = wait_for_worker(pid, channel)
        if exit_code in (None, 0):
            return
        send(channel, number=_NUMBER.unpack_from(current)[0], status="died", exit_code=exit_code)


def wait_for_worker(pid: int, channel: socket.socket) -> int | None:
    """Waits for the worker; -N where signal N ended it, None where the parent has gone (and then the worker too)."""
    handle = os.pidfd_open(pid)
    watched = select.poll()
    watched.register(handle, select.POLLIN)
    watched.register(channel, 0)  # nothing but POLLHUP
    ready = [descriptor for descriptor, _ in watched.poll()]
    parent_is_gone = handle not in ready
    if parent_is_gone:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.close(handle)
    return None if parent_is_gone else os.waitstatus_to_exitcode(status)


def answer_requests(channel: socket.socket, *, photo: int, current: mmap.mmap) -> None:
    """Answers requests until the parent is gone; never returns: the worker."""
    confine_worker()
    start_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1)
        if not message:
            os._exit(0)
        request = json.loads(message)
        _NUMBER.pack_into(current, 0, request["number"])
        limit_bytes = start_bytes + request["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_REAL, request["timeout_s"])
        answer = decode_one(request, photo=photo, pixels=descriptors[0])
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(descriptors[0])
        send(channel, number=request["number"], **answer)


def confine_worker() -> None:
    """Makes the worker end with its nursery, dump no core, say nothing, and go first where memory runs out."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff and Pillow remark on every second damaged file
    Path("/proc/self/oom_score_adj").write_text("1000")


def decode_one(request: dict[str, Any], *, photo: int, pixels: int) -> dict[str, Any]:
    """Decodes parts of one photo: their pixels go to the file, and what became of them is returned."""
    try:
        data = os.pread(photo, request["photo_bytes"], 0)
        wanted = [make_part(part) for part in request["parts"]]
        found = decode_parts(data, wanted, max_pixels=request["max_pixels"])
        outcomes = [give_part(one, pixels, at=part["at"]) for one, part in zip(found, request["parts"], strict=True)]
    except ImageError as error:
        return refuse(error)
    except MemoryError:
        return {"status": "failed", "code": "out_of_memory", "detail": "decoding takes more memory than a photo may"}
    except Exception as error:  # a fault of ours: that row fails, and says so
        return {"status": "failed", "code": "decoder_error", "detail": f"{type(error).__name__}: {error}"[:2000]}
    width, height = read_stored_size(data) or (None, None)
    return {"status": "decoded", "width": width, "height": height, "parts": outcomes}


def make_part(asked: dict[str, Any]) -> Part:
    """Makes what `decode_parts` takes of one part of a request."""
    black, white, resize, tiles = PixelRules(*asked["rules"])
    box = None if asked["box"] is None else tuple(asked["box"])
    return Part(asked["size"], Levels(black, white), resize, box, Tiles(*tiles))


def refuse(error: ImageError) -> dict[str, Any]:
    """Returns the answer for a photo, or a part of one, that must not be decoded."""
    return {"status": "refused", "code": error.code, "detail": error.detail[:MAX_DETAIL]}


def give_part(found: Tensor | ImageError, pixels: int, *, at: int) -> dict[str, Any] | None:
    """Writes a part, uint8 (3, H, W), into the file of pixels and returns None; or returns why there is none.

    Raises:
        MemoryError: there is no room.
    """
    if isinstance(found, ImageError):
        return refuse(found)
    if os.pwrite(pixels, found.numpy().data, at) < found.numel():
        raise MemoryError
    return None


def send(channel: socket.socket, **message: object) -> None:
    """Sends one message; ends this process if nobody is left to read it."""
    try:
        channel.send(json.dumps(message).encode())
    except OSError:
        os._exit(0)  # the parent is gone


if __name__ == "__main__":
    main(sys.argv[1:])
