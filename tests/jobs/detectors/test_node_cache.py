"""A node's downloaded detectors: a bound of their bytes, and none removed under a process that loads it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.detectors import node_cache
from jobs.detectors.node_cache import CACHE_BYTES_VARIABLE, hold_detector
from jobs.errors import JobError, RequestError

IDS = [f"{number:016x}" for number in range(3)]
BYTES = 1000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache with room for two detectors of 1,000 bytes."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(CACHE_BYTES_VARIABLE, str(2 * BYTES))
    monkeypatch.setattr(node_cache, "download", write_detector)
    return tmp_path / f"attentdiffernet-{os.getuid()}"


def write_detector(detectors: str, category: str, *, detector_id: str, folder: Path) -> None:
    """Takes the place of a download."""
    folder.mkdir()
    (folder / "weights").write_bytes(b"x" * BYTES)


def use(category: str, detector_id: str, *, at: float) -> None:
    """Takes a detector at a time."""
    with hold_detector("s3://d", category, detector_id=detector_id) as folder:
        assert (folder / "weights").stat().st_size == BYTES
    os.utime(folder, (at, at))


def list_kept(cache: Path) -> Sequence[str]:
    """Lists what the cache has."""
    return sorted(path.name for path in cache.glob("*/*") if path.is_dir())


def test_the_detector_that_was_not_used_for_longest_goes_whatever_its_category(cache: Path) -> None:
    use("cap", IDS[0], at=1)
    use("pole", IDS[1], at=2)
    use("cap", IDS[0], at=3)
    use("cap", IDS[2], at=4)
    assert list_kept(cache) == [IDS[0], IDS[2]]
    use("pole", IDS[1], at=5)  # it is downloaded again
    assert list_kept(cache) == [IDS[1], IDS[2]]


def hold_until_told(ready: object, done: object) -> None:
    """Loads a detector for as long as the parent says."""
    with hold_detector("s3://d", "cap", detector_id=IDS[0]) as folder:
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]
        assert (folder / "weights").exists()


def test_a_detector_that_another_process_loads_stays(cache: Path) -> None:
    use("cap", IDS[0], at=1)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold_until_told, args=(ready, done))
    other.start()
    assert ready.wait(60)
    os.utime(cache / "cap" / IDS[0], (1, 1))
    use("cap", IDS[1], at=2)
    use("cap", IDS[2], at=3)
    assert list_kept(cache) == [IDS[0], IDS[2]]
    done.set()
    other.join(60)
    assert other.exitcode == 0


def test_half_a_download_of_a_killed_process_goes_after_a_day(cache: Path) -> None:
    use("cap", IDS[0], at=1)
    for name, at in (("tmpold", 1.0), ("tmpnew", None)):
        (cache / "cap" / name).mkdir()
        os.utime(cache / "cap" / name, None if at is None else (at, at))
    use("cap", IDS[1], at=2)
    assert list_kept(cache) == [IDS[0], IDS[1], "tmpnew"]


def test_a_bound_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_BYTES_VARIABLE, "20 GB")
    with pytest.raises(RequestError, match="expected a number of bytes in ATTENTDIFFERNET_CACHE_BYTES, got '20 GB'"):
        use("cap", IDS[0], at=1)


def test_a_cache_that_others_could_fill_is_not_used(cache: Path) -> None:
    use("cap", IDS[0], at=1)
    cache.chmod(0o777)
    with pytest.raises(JobError, match="only this user"):
        use("cap", IDS[0], at=2)
    shutil.rmtree(cache)
