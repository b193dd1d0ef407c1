"""Object storage: the same behaviour on local files and on a real S3 server, for every key that S3 allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import storage
from jobs.errors import ConflictError, DeniedError, MissingBucketError, MissingObjectError, RequestError, StorageError
from jobs.storage import clients as storage_clients
from jobs.storage import uris
from tests.support.buckets import deny_reading
from tests.support.clients import fresh_clients

ORDINARY_KEYS = (
    "a b.jpg",
    "100%.jpg",
    "a%20b.jpg",
    "plus+plus.jpg",
    "ünï 日本.jpg",
    "#?&=.jpg",
    'it\'s "x".jpg',
    "b\\s.jpg",
)
ODD_KEYS = ("double//slash.jpg", "./dot.jpg", "up/../over.jpg", "tab\there.jpg", "folder/")


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place to write to."""
    return f"file://{tmp_path}" if request.param == "file" else str(request.getfixturevalue("bucket"))


@pytest.mark.parametrize("key", ORDINARY_KEYS)
def test_an_object_is_listed_and_read_under_the_key_it_was_written_to(place: str, key: str) -> None:
    uri = uris.join(place, "in", key)
    storage.write(uri, b"photo")
    (info,) = storage.list_objects(uris.join(place, "in"))
    assert (info.uri, info.size_bytes) == (uri, 5)
    assert storage.read_with_etag(info.uri) == (b"photo", info.etag)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_s3_key_that_obstore_refuses_is_listed_and_read_all_the_same(bucket: str, key: str) -> None:
    import boto3

    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=f"in/{key}", Body=b"photo")
    storage.write(uris.join(bucket, "in", "zz.jpg"), b"after it")
    first, last = storage.list_objects(uris.join(bucket, "in"))
    assert [first.uri, last.uri] == [f"{bucket}/in/{key}", f"{bucket}/in/zz.jpg"]
    assert storage.read_with_etag(first.uri) == (b"photo", first.etag)


def test_a_changed_object_has_another_etag(place: str) -> None:
    uri = uris.join(place, "x")
    storage.write(uri, b"one")
    before = storage.read_with_etag(uri)[1]
    storage.write(uri, b"two!")
    assert storage.read_with_etag(uri)[1] != before


def test_a_conditional_write_wins_once(place: str) -> None:
    uri = uris.join(place, "aliases.json")
    storage.write(uri, b"one", if_absent=True)
    with pytest.raises(ConflictError, match=r"aliases\.json"):
        storage.write(uri, b"late", if_absent=True)
    etag = storage.read_with_etag(uri)[1]
    tags = [storage.write(uri, b"second", if_etag=etag), storage.read_with_etag(uri)[1]]
    with pytest.raises(ConflictError, match=r"aliases\.json"):
        storage.write(uri, b"stale", if_etag=etag)
    tags.append(storage.write(uri, b"second!", if_etag=tags[0]))
    assert (tags[0], tags[2]) == (tags[1], storage.read_with_etag(uri)[1])


def test_a_missing_object_is_named(place: str) -> None:
    uri = uris.join(place, "none.jpg")
    with pytest.raises(MissingObjectError, match=r"none\.jpg does not exist"):
        storage.read(uri)


def test_deleting_a_tree_leaves_its_neighbours(place: str) -> None:
    for name in ("run/a", "run/b/c", "run-2/a"):
        storage.write(uris.join(place, name), b"x")
    storage.delete_tree(uris.join(place, "run"))
    storage.delete_tree(uris.join(place, "run"))
    assert [info.uri for info in storage.list_objects(place)] == [uris.join(place, "run-2/a")]


def test_deleting_a_tree_takes_folder_markers_along(bucket: str) -> None:
    import boto3

    for key in ("run/", "run/rows/", "run/rows/a"):
        boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"")
    storage.delete_tree(f"{bucket}/run")
    assert list(storage.list_objects(bucket)) == []


def test_a_missing_bucket_is_said_in_one_line(s3_environment: str | None, bucket: str) -> None:
    with pytest.raises(MissingBucketError, match="bucket of s3://no-such-bucket-anywhere") as caught:
        list(storage.list_objects("s3://no-such-bucket-anywhere/photos"))
    assert (
        str(caught.value)
        == "bucket of s3://no-such-bucket-anywhere/photos does not exist: create it or correct the name"
    )
    assert caught.value.exit_code == 2
    with pytest.raises(MissingBucketError, match="bucket of s3://no-such-bucket-anywhere"):
        storage.write("s3://no-such-bucket-anywhere/photos/x", b"")
    with pytest.raises(MissingBucketError, match="bucket of s3://no-such-bucket-anywhere"):
        storage.read("s3://no-such-bucket-anywhere/photos/x")


def test_a_denied_object_is_no_missing_object(bucket: str) -> None:
    storage.write(f"{bucket}/secret.jpg", b"x")
    deny_reading(bucket, "secret.jpg")
    with pytest.raises(DeniedError, match="denied"):
        storage.read(f"{bucket}/secret.jpg")


@pytest.fixture
def nobody(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A storage whose address nobody listens at, with boto3's pauses a thousandth as long."""
    from botocore.retries import standard

    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0.001)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://somebody:secret@127.0.0.1:9")
    with fresh_clients():
        yield


@pytest.mark.usefixtures("nobody")
def test_an_unreachable_endpoint_is_one_line(bucket: str) -> None:
    with pytest.raises(StorageError, match="could not be reached") as caught:
        list(storage.list_objects(f"{bucket}/x"))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("nobody")
def test_where_nobody_listens_is_said_before_the_minutes_of_trying(capsys: pytest.CaptureFixture[str]) -> None:
    for bucket in ("archive", "results"):
        storage_clients.open_store("s3", bucket)
    said = capsys.readouterr().err
    assert "warning: the S3 endpoint at 127.0.0.1 does not answer ([Errno 111]" in said
    assert said.count("warning") == 1
    assert "secret" not in said


@pytest.mark.parametrize("uri", ["ftp://x/y", "s3://", "http://x/y"])
def test_a_uri_of_another_kind_is_refused(uri: str) -> None:
    with pytest.raises(RequestError, match="expected a"):
        uris.normalize(uri)


def test_keys_are_never_decoded_or_encoded() -> None:
    assert uris.split("s3://bucket/a%20b/c#d?e") == ("s3", "bucket", "a%20b/c#d?e")
    assert uris.normalize("s3://bucket/a b/") == "s3://bucket/a b"
