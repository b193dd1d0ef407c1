"""A page in a bucket is shown by a browser, not saved."""

from __future__ import annotations

import obstore
import pytest
from obstore.store import MemoryStore

from jobs import storage
from jobs.storage import objects


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("reports/night.html", "text/html; charset=utf-8"),
        ("overlays/run_id=night/0a.jpg", "image/jpeg"),
        ("why.png", "image/png"),
        ("runs/night.json", None),
        ("scores/a.parquet", None),
    ],
)
def test_what_people_open_by_a_link_is_written_with_its_content_type(
    name: str, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(objects, "open_store", lambda *_: store)
    storage.write(f"s3://bucket/{name}", b"content")
    assert obstore.get(store, name).attributes.get("Content-Type") == kind
