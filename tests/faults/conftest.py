"""The archive that killed jobs score, and a disk that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import storage
from tests.support.kills import PHOTOS


@pytest.fixture
def archive(drawn: Path, bucket: str) -> str:
    """Enough photos for several blocks and batches."""
    photos = sorted((drawn / "data").rglob("*.jpg"))
    for number in range(PHOTOS):
        storage.write(f"{bucket}/archive/insulator/{number:04d}.jpg", photos[number % len(photos)].read_bytes())
    return f"{bucket}/archive"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs to be root and allowed to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)
