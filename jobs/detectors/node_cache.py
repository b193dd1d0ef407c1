"""Detectors that a node has downloaded: once for all its processes, the last used ones up to a number of bytes.

Whoever loads a detector holds a shared lock on it meanwhile, so that nobody removes it under him. What is loaded from a
mapped file stays whole when the file goes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from jobs import storage
from jobs.detectors.aliases import DETECTOR_ID, check_category
from jobs.detectors.signing import explain_unsigned, hash_file, read_digests
from jobs.errors import JobError, MissingObjectError, RequestError, is_disk_full
from jobs.storage import uris
from model.artifact.files import ARTIFACT_FILES, WEIGHTS, ArtifactError, hash_content

CACHE_BYTES_VARIABLE = "ATTENTDIFFERNET_CACHE_BYTES"
"""Disk in bytes that a node's downloaded detectors may take."""
DEFAULT_CACHE_BYTES = 20_000_000_000
"""28 detectors with the paper's flow, of 0.7 GB each."""
_LEFTOVER_S = 86_400
"""Half a download that is older was left by a process that was killed."""


@contextmanager
def hold_detector(detectors: str, category: str, *, detector_id: str) -> Iterator[Path]:
    """Yields the folder of a detector on this node, which stays there while the block runs.

    It is downloaded where it is not there yet, and its content id verified. The folder appears by an atomic rename, so
    that others never see half of it; a lock lets one process download while the others wait.

    Raises:
        RequestError: a category that would lead elsewhere, or a bound of the cache that is no number.
        MissingObjectError: no such detector.
        ArtifactError: the content is not what the id says.
        JobError: the local disk is full.
    """
    check_category(category)
    cache = make_private_cache() / category
    folder = cache / detector_id
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{detector_id}.lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.exists():
                break
            fcntl.flock(lock, fcntl.LOCK_EX)  # not atomic: another may have downloaded it meanwhile, or removed it
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=cache) as scratch:
                    download(detectors, category, detector_id=detector_id, folder=Path(scratch) / "download")
                    (Path(scratch) / "download").rename(folder)
                shrink_cache(cache.parent, keep=folder)
        os.utime(folder)
        yield folder


def shrink_cache(cache: Path, *, keep: Path) -> None:
    """Removes detectors that were not used for longest until the rest fits; never one that a process is loading.

    Args:
        cache: folder of all categories.
        keep: the one that was just downloaded.
    """
    limit_bytes, now = read_limit_bytes(), time.time()
    for leftover in (path for path in cache.glob("*/tmp*") if path.is_dir()):
        if now - leftover.stat().st_mtime > _LEFTOVER_S:
            shutil.rmtree(leftover, ignore_errors=True)
    found = sorted((path for path in cache.glob("*/*") if DETECTOR_ID.fullmatch(path.name)), key=read_last_use)
    sizes = {path: measure_bytes(path) for path in found}
    total = sum(sizes.values())
    for path in found:
        if total <= limit_bytes:
            return
        if path != keep and remove_unused(path):
            total -= sizes[path]


def remove_unused(folder: Path) -> bool:
    """Removes a detector unless a process holds it; says whether it did."""
    with folder.with_suffix(".lock").open("w") as lock:
        if not try_lock(lock):
            return False
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as scratch:
            try:
                folder.rename(Path(scratch) / "removed")
            except FileNotFoundError:  # another has removed it
                return False
        return True


def try_lock(lock: TextIO) -> bool:
    """Takes a lock for this process alone; false where others have it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_limit_bytes() -> int:
    """Reads the bound of the cache. Raises RequestError where the variable holds no number."""
    asked = os.environ.get(CACHE_BYTES_VARIABLE, "")
    if asked and not asked.isdecimal():
        raise RequestError(f"expected a number of bytes in {CACHE_BYTES_VARIABLE}, got {asked!r}")
    return int(asked) if asked else DEFAULT_CACHE_BYTES


def read_last_use(folder: Path) -> float:
    """Returns when a detector was last taken, in seconds; 0 where it has gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0


def measure_bytes(folder: Path) -> int:
    """Measures the files of a detector; 0 where it has gone."""
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except FileNotFoundError:
        return 0


def make_private_cache() -> Path:
    """Makes a folder that only this user can fill: what lies in it is loaded without hashing it again.

    Raises:
        JobError: something else is there, or a folder that others can write to.
    """
    base = Path(tempfile.gettempdir()) / f"attentdiffernet-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise JobError(f"{base} must be a folder that only this user can write to: remove it, or set TMPDIR")
    return base


def download(detectors: str, category: str, *, detector_id: str, folder: Path) -> None:
    """Downloads a detector into ``folder`` and verifies its content id and, where there is a key, its signature.

    Raises:
        ArtifactError: the content is not what the id says, or was not signed; see `fetch_artifact` for others.
    """
    fetch_artifact(detectors, category, detector_id=detector_id, folder=folder)
    try:
        digests = read_digests(detectors, category, detector_id=detector_id) or {}
    except RequestError as error:
        raise ArtifactError(str(error)) from error
    place = uris.join(detectors, category, detector_id)
    for name, expected in digests.items():
        if not (folder / name).exists() or hash_file(folder / name) != expected:
            raise ArtifactError(explain_unsigned(uris.join(place, name)))


def fetch_artifact(detectors: str, category: str, *, detector_id: str, folder: Path) -> None:
    """Downloads a detector into ``folder`` and verifies its content id alone.

    Raises:
        MissingObjectError: no such detector.
        ArtifactError: the content is not what the id says.
        JobError: the local disk is full.
    """
    folder.mkdir(parents=True)
    prefix = uris.join(detectors, category, detector_id)
    for name in ARTIFACT_FILES:
        try:
            (folder / name).write_bytes(storage.read(uris.join(prefix, name)))
        except MissingObjectError:
            if name == WEIGHTS:
                raise
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise JobError(
                f"no room is left in {tempfile.gettempdir()} for the detector {prefix}: make room there, or set TMPDIR "
                f"to a larger disk ({CACHE_BYTES_VARIABLE} bounds what detectors take of it)"
            ) from error
    if hash_content(folder) != detector_id:
        raise ArtifactError(
            f"{prefix} does not hold the content its id names: it was changed or damaged; register it again"
        )
