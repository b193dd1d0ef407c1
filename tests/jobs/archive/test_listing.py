"""Listing with many requests at once: every object exactly once, whatever its key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import storage
from jobs.archive import listing
from jobs.archive.listing import list_pages
from jobs.errors import MissingBucketError, StorageError
from jobs.storage import ObjectInfo, uris

AWKWARD_KEYS = (
    "root.jpg",
    "a/x.jpg",
    "a/",
    "a//b.jpg",
    "a//",
    "a/./dot.jpg",
    "a/../up.jpg",
    "a/tab\there.jpg",
    "a-b/x.jpg",
    "a/b/c/d/e.jpg",
    "a/b/c.jpg",
    "a/b.jpg",
    "b",
    "b/",
    "b/100%25.jpg",
    "b/plus+space x.jpg",
    "\N{LATIN SMALL LETTER E WITH ACUTE}/\N{GRINNING FACE}.jpg",
    "z/\uffff.jpg",
)


class _Store:
    """S3's listing calls over keys in memory: sorted by UTF-8 bytes, two to a page."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = sorted(keys, key=str.encode)

    def list_between(self, uri: str, *, after: str = "", until: str = "") -> Iterator[list[ObjectInfo]]:
        prefix = uris.split(uri)[2] + "/"
        found = [key for key in self.keys if key.startswith(prefix) and key > after and (not until or key <= until)]
        for start in range(0, len(found), 2):
            yield [ObjectInfo(f"s3://b/{key}", "e", 1, None) for key in found[start : start + 2]]  # type: ignore[arg-type]

    def list_level(self, uri: str, *, max_pages: int = 20) -> tuple[list[ObjectInfo], list[str]]:
        prefix = uris.split(uri)[2] + "/"
        below = [key.removeprefix(prefix) for key in self.keys if key.startswith(prefix)]
        return [], sorted({f"s3://b/{prefix}{key.split('/', 1)[0]}" for key in below if "/" in key})[:max_pages]


def _listed(uri: str) -> list[str]:
    return [info.uri for page in list_pages(uri) for info in page]


@settings(max_examples=200, deadline=None)
@given(keys=st.sets(st.text("ab/.é\U0001f600\t", min_size=1, max_size=8), max_size=40), shares=st.integers(1, 8))
def test_every_key_is_listed_exactly_once(keys: set[str], shares: int) -> None:
    store = _Store([f"in/{key}" for key in keys] + ["in", "in-2/x", "other"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "list_between", store.list_between)
        patch.setattr(storage, "list_level", store.list_level)
        patch.setattr(listing, "MAX_SHARES", shares)
        assert sorted(_listed("s3://b/in")) == sorted(f"s3://b/in/{key}" for key in keys)


def test_awkward_keys_at_all_levels_are_listed_once_on_a_real_server(bucket: str) -> None:
    import boto3

    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    for key in AWKWARD_KEYS:
        client.put_object(Bucket=name, Key=f"in/{key}", Body=b"photo")
    client.put_object(Bucket=name, Key="in-2/neighbour.jpg", Body=b"photo")
    assert sorted(_listed(f"{bucket}/in")) == sorted(f"{bucket}/in/{key}" for key in AWKWARD_KEYS)
    assert len(_listed(bucket)) == len(AWKWARD_KEYS) + 1


@settings(max_examples=30, deadline=None)
@given(keys=st.sets(st.lists(st.sampled_from(["a", "b", "c d", "é"]), min_size=1, max_size=5).map("/".join)))
def test_every_local_file_is_listed_exactly_once(keys: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("archive")
    for key in keys:
        (folder / f"{key}.jpg").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.jpg").write_bytes(b"x")
    assert sorted(_listed(f"file://{folder}")) == sorted(f"file://{folder}/{key}.jpg" for key in keys)


def test_an_error_in_one_share_ends_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "x.jpg").write_bytes(b"x")
    list_between = storage.list_between

    def failing(uri: str, *, after: str = "", until: str = "") -> Iterator[list[ObjectInfo]]:
        if uri.endswith("/17"):
            raise StorageError("gone away")
        return list_between(uri, after=after, until=until)

    monkeypatch.setattr(storage, "list_between", failing)
    with pytest.raises(StorageError, match="gone away"):
        _listed(f"file://{tmp_path}")


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    with pytest.raises(MissingBucketError, match="bucket of s3://no-such-bucket-anywhere"):
        _listed("s3://no-such-bucket-anywhere/photos")
