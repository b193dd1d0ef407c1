"""What publishing and leases ask of a store: local files, a real S3 server, a stub of Google's XML API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import storage
from jobs.errors import ConflictError, MissingObjectError
from jobs.storage import arrow, clients, uris
from jobs.storage.lease import hold_lease
from tests.support.gcs_stub import serve_gcs

_ACCOUNT = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of the stub of Google's storage."""
    with serve_gcs() as address:
        account = tmp_path / "account.json"
        account.write_text(json.dumps(_ACCOUNT | {"gcs_base_url": address}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
        for cached in (clients.open_store, arrow.open_other_filesystem):
            cached.cache_clear()
        yield "gs://photos"
    for cached in (clients.open_store, arrow.open_other_filesystem):
        cached.cache_clear()


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3), "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place in each kind of store."""
    if request.param == "file":
        return f"file://{tmp_path}/place"
    return str(request.getfixturevalue("bucket" if request.param == "s3" else "gcs"))


def test_a_conditional_write_wins_once(place: str) -> None:
    uri = uris.join(place, "aliases.json")
    first = storage.write(uri, b"one", if_absent=True)
    with pytest.raises(ConflictError, match=r"aliases\.json"):
        storage.write(uri, b"late", if_absent=True)
    assert storage.read_with_etag(uri) == (b"one", first)
    second = storage.write(uri, b"two", if_etag=first)
    with pytest.raises(ConflictError, match=r"aliases\.json"):
        storage.write(uri, b"stale", if_etag=first)
    assert storage.read_with_etag(uri) == (b"two", second)


def test_a_lease_is_held_renewed_and_released(place: str) -> None:
    uri = uris.join(place, "run", "lease.json")
    with hold_lease(uri) as lease:
        lease.confirm()
        assert storage.read(uri)
    with pytest.raises(MissingObjectError, match=r"lease\.json"):
        storage.read(uri)
