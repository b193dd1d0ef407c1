"""An archive without category folders: `jobs.score --category NAME`."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import storage
from jobs.archive.manifest import fill_ordering
from jobs.archive.ordering import Ordering
from jobs.errors import RequestError
from jobs.scoring.plan import plan_detectors
from jobs.tables.scratch import Scratch


def test_every_photo_is_of_the_category_that_is_given(tmp_path: Path) -> None:
    for name in ("1.jpg", "line-7/2.jpg"):
        storage.write(f"file://{tmp_path}/{name}", b"x")
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        fill_ordering(ordering, f"file://{tmp_path}", key_pattern="(?P<category>[^/]+)/", category="pole")
        assert ordering.list_categories() == {"pole"}
        assert sum(len(batch) for batch in ordering.stream_rows()) == 2


def test_a_flat_archive_without_it_is_answered_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no key of the archive has a category, .* --category NAME"):
        plan_detectors(f"file://{tmp_path}", [], alias="champion", false_alarm_rate=0.05)
