"""The local file system as a store of objects: every name is listed, whatever it is. Part of jobs.storage.

obstore ends a listing at a name that is not UTF-8 or at a link that leads back, and leaves out names like ``a#1``.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from jobs.errors import RefusedError, TooLargeError
from jobs.storage.errors import make_conflict
from jobs.storage.uris import escape_name, restore_name

PAGE_FILES = 1000
MAX_LEVEL_FILES = 100_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG})
"""What opening says of names that are no files; everything else speaks of the storage, and may pass."""


def locate(key: str) -> Path:
    """Returns the path of a file from the key of its URI."""
    return Path("/" + os.fsdecode(restore_name(key)))


def format_etag(found: os.stat_result) -> str:
    """Returns what changes with a file's bytes, written as obstore does: inode, microseconds and size."""
    return f"{found.st_ino:x}-{found.st_mtime_ns // 1000:x}-{found.st_size:x}"


def read_file(path: Path, *, max_bytes: int | None = None) -> tuple[bytes, str]:
    """Reads a file whole; returns its bytes and entity tag.

    Raises:
        TooLargeError: it has more than ``max_bytes``, and nothing was read.
        RefusedError: it is a folder, a pipe, a socket, a device, or a link to nothing.
        OSError: it is missing, or may not be read.
    """
    with open_file(path) as file:
        found = os.fstat(file.fileno())
        check_regular(path, found)
        if max_bytes is not None and found.st_size > max_bytes:
            raise TooLargeError(f"file://{escape_name(str(path))}", size_bytes=found.st_size, max_bytes=max_bytes)
        return file.read(), format_etag(found)


def read_size(path: Path) -> int:
    """Returns a file's size in bytes; raises as `read_file` does."""
    with refuse_odd_name(path):
        found = path.stat()
    check_regular(path, found)
    return found.st_size


def check_regular(path: Path, found: os.stat_result) -> None:
    """Raises RefusedError for what is no file."""
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"file://{escape_name(str(path))} is a folder, pipe, socket or device, expected a file")


def open_file(path: Path) -> BinaryIO:
    """Opens a file to be read, whatever it is: a pipe does not wait for a writer."""
    with refuse_odd_name(path):
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


@contextmanager
def refuse_odd_name(path: Path) -> Iterator[None]:
    """Makes what the operating system says of names that are no files, and will say again, a RefusedError."""
    try:
        yield
    except ValueError as error:  # a zero byte
        raise RefusedError(f"file://{escape_name(str(path))} is no name of a file: {error}") from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise RefusedError(f"file://{escape_name(str(path))} is a link to nothing") from None
        if error.errno in _NO_FILE:
            raise RefusedError(f"file://{escape_name(str(path))} is no file: {error.strerror}") from None
        raise


def write_file(path: Path, data: bytes, *, if_absent: bool = False, if_etag: str | None = None) -> str:
    """Writes a file whole, so that no reader sees half of it; returns its entity tag.

    Args:
        path: where; its folder is made.
        data: the bytes.
        if_absent: write only if nothing is there.
        if_etag: write only if the file still has this entity tag.

    Raises:
        ConflictError: the condition did not hold.
    """
    if if_etag is None:
        return put_file(path, data, if_absent=if_absent)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if format_etag(path.stat()) != if_etag:
            raise make_conflict(path)
        return put_file(path, data)


def put_file(path: Path, data: bytes | Path, *, if_absent: bool = False) -> str:
    """Writes bytes, or copies another file, under a name beside ``path`` and moves it there; returns its entity tag.

    Raises:
        ConflictError: a file is there that should be absent.
        RefusedError: a folder, device, pipe or socket is there, which a move would put out of the way.
    """
    with suppress(FileNotFoundError):
        check_regular(path, path.stat())
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, 2**20)
            else:
                file.write(data)
            os.fchmod(file.fileno(), 0o666 & ~read_umask())
        written = Path(name).stat()
        if if_absent:
            os.link(name, path)
            Path(name).unlink()
        else:
            Path(name).replace(path)
    except FileExistsError:
        raise make_conflict(path) from None
    finally:
        Path(name).unlink(missing_ok=True)
    return format_etag(written)


def read_umask() -> int:
    """Reads which permissions new files of this process lack."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def list_pages(folder: Path) -> Iterator[list[os.DirEntry[bytes]]]:
    """Lists all that lies under a folder in pages: files, links to nothing, pipes, and folders without permission.

    Links to folders are followed, unless they lead back to a folder on the way. A folder that is not there is empty.
    """
    waiting = [(os.fsencode(folder), identify_parents(folder))]
    while waiting:
        place, above = waiting.pop()
        inner = []
        for page in divide_pages(scan(place), PAGE_FILES):
            files = [entry for entry in page if not is_entered(entry)]
            inner += [entry for entry in page if is_entered(entry)]
            yield [entry for entry in files if not is_folder(entry) or not entry.is_symlink()]
        for entry in sorted(inner, key=lambda entry: entry.name, reverse=True):
            here = identify(entry)
            if here is not None and here not in above:
                waiting.append((entry.path, above | {here}))


def list_level(folder: Path) -> tuple[list[os.DirEntry[bytes]], list[str]]:
    """Looks at one level, with the rules of `list_pages`; returns what is no folder, and the keys of the folders.

    A folder of more than MAX_LEVEL_FILES is returned as it is, without its files: `list_pages` takes them in pages.
    """
    above = identify_parents(folder)
    found = list(itertools.islice(scan(os.fsencode(folder)), MAX_LEVEL_FILES + 1))
    if len(found) > MAX_LEVEL_FILES:
        return [], [escape_name(str(folder)).removeprefix("/")]
    files = [entry for entry in found if not is_entered(entry) and not (is_folder(entry) and entry.is_symlink())]
    inner = [entry for entry in found if is_entered(entry) and identify(entry) not in above]
    return files, [make_key(entry) for entry in inner]


def scan(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    """Yields what lies right in a folder, in no particular order; nothing if it is gone."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


def divide_pages(entries: Iterator[os.DirEntry[bytes]], size: int) -> Iterator[list[os.DirEntry[bytes]]]:
    """Yields lists of at most ``size`` entries."""
    while page := list(itertools.islice(entries, size)):
        yield page


def is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Tells whether an entry is a folder, or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_entered(entry: os.DirEntry[bytes]) -> bool:
    """Tells whether an entry is a folder whose names can be read."""
    return is_folder(entry) and os.access(entry.path, os.R_OK | os.X_OK)


def identify(entry: os.DirEntry[bytes]) -> tuple[int, int] | None:
    """Returns device and inode of what an entry leads to; None if it has gone."""
    try:
        found = entry.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def identify_parents(folder: Path) -> frozenset[tuple[int, int]]:
    """Returns device and inode of a folder and of all above it, as the path names them."""
    found = set()
    for place in (folder, *folder.parents):
        with suppress(OSError):
            status = place.stat()
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def make_key(entry: os.DirEntry[bytes]) -> str:
    """Returns the key of an entry: its path as text, without the first slash."""
    return escape_name(os.fsdecode(entry.path)).removeprefix("/")


def describe(entry: os.DirEntry[bytes]) -> tuple[str, str, int, datetime]:
    """Returns key, entity tag, size and time of an entry; of a link to nothing those of the link."""
    try:
        found = entry.stat()
    except OSError:
        found = entry.stat(follow_symlinks=False)
    return make_key(entry), format_etag(found), found.st_size, to_time(found.st_mtime_ns)


def to_time(nanoseconds: int) -> datetime:
    """Returns a time of the file system; the first one there is for those outside the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _EPOCH


def delete_file(path: Path) -> None:
    """Deletes a file; nothing there is no error."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
