"""The archive that killed jobs score."""

from __future__ import annotations

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
