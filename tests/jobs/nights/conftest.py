"""A night of a request against a head written by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from jobs.nights.config import NightlyConfig
from jobs.nights.night import Night
from tests.support.servers.fake_head import FIELDS, FakeClock, FakeHead


@pytest.fixture
def night(tmp_path: Path) -> Callable[..., Night]:
    def make(head: FakeHead, **more: Any) -> Night:
        (tmp_path / "score.yaml").write_text(more.pop("fields", FIELDS))
        request = {"head": "http://h:8265", "score_config": str(tmp_path / "score.yaml"), "night": date(2026, 11, 29)}
        return Night(NightlyConfig.model_validate(request | more), head, clock=FakeClock())

    return make
