"""What a run asks of a store: local files, a real S3 server, a stub of Google's XML API, Microsoft's Azurite."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from jobs import storage
from jobs.archive.listing import list_pages
from jobs.archive.uri_list import read_columns, select_known
from jobs.detectors.aliases import read_aliases, set_alias
from jobs.errors import ConflictError, MissingBucketError, MissingObjectError, StorageError
from jobs.storage import arrow, clients, uris
from jobs.storage.lease import hold_lease
from jobs.tables.parquet import read_schema, scan_parquet, write_parquet
from tests.jobs.results.score_rows import commit_rows, list_photos, score_row
from tests.support.azurite import create_container, find_azurite, open_account, serve_azurite
from tests.support.gcs_stub import serve_gcs

_ACCOUNT = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


@pytest.fixture(autouse=True)
def _no_clients() -> Iterator[None]:
    """Clients are made anew, for each test has its own settings."""
    for cached in (clients.open_store, arrow.open_other_filesystem):
        cached.cache_clear()
    yield
    for cached in (clients.open_store, arrow.open_other_filesystem):
        cached.cache_clear()


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of the stub of Google's storage."""
    with serve_gcs() as address:
        account = tmp_path / "account.json"
        account.write_text(json.dumps(_ACCOUNT | {"gcs_base_url": address}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
        yield "gs://photos"


@pytest.fixture(scope="module")
def azure_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that lead to Azurite."""
    program = find_azurite()
    if program is None:
        pytest.skip("needs Azurite: npm install --prefix build/azurite azurite")
    with serve_azurite(program, tmp_path_factory.mktemp("azurite")) as settings:
        yield settings


@pytest.fixture
def azure(azure_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A new container of Azurite."""
    for name, value in azure_settings.items():
        monkeypatch.setenv(name, value)
    return create_container()


_FIXTURES = {"s3": "bucket", "gs": "gcs", "az": "azure"}


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3), "gs", "az"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in each kind of store, with the environment of a worker."""
    if request.param == "file":
        return f"file://{tmp_path}/place"
    made = str(request.getfixturevalue(_FIXTURES[request.param]))
    for name, value in arrow.make_worker_environment().items():
        monkeypatch.setenv(name, value)
    return made


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


def test_objects_are_listed_flat_by_level_and_by_many_requests(place: str) -> None:
    keys = ("a/1.jpg", "a/b/2.jpg", "a/b/day=1/ünï #1.jpg", "a b.jpg", "c/100%25.jpg")
    for key in keys:
        storage.write(uris.join(place, key), key.encode())
    listed = {info.uri: info for info in storage.list_objects(place)}
    assert sorted(listed) == sorted(uris.join(place, key) for key in keys)
    assert {info.uri for page in list_pages(place, threads=3) for info in page} == set(listed)
    for uri, info in listed.items():
        key = uri[len(place) + 1 :].encode()
        assert (storage.read_with_etag(uri), info.size_bytes) == ((key, info.etag), len(key))
    if not place.startswith("s3://"):
        files, folders = storage.list_level(uris.join(place, "a"))
        assert ([info.uri for info in files], folders) == ([uris.join(place, "a/1.jpg")], [uris.join(place, "a/b")])


def test_pyarrow_writes_and_reads_in_a_process_that_gets_its_filesystem(place: str, tmp_path: Path) -> None:
    filesystem, path = storage.resolve_filesystem(uris.join(place, "run=1", "rows"))
    filesystem = pickle.loads(pickle.dumps(filesystem))  # as Ray sends it
    filesystem.create_dir(path, recursive=True)
    table = pa.table({"image_uri": ["x", None], "score": [1.5, 2.5]})
    pq.write_table(table, f"{path}/one.parquet", filesystem=filesystem)
    write_parquet(table, uris.join(place, "run=1", "rows", "two.parquet"))
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    assert sorted(info.base_name for info in found if info.is_file) == ["one.parquet", "two.parquet"]
    files = [uris.join(place, "run=1", "rows", name) for name in ("one.parquet", "two.parquet")]
    for small in (True, False):
        rows = pa.Table.from_batches(
            scan_parquet(files, columns=table.schema.names, schema=read_schema(files[0]), small=small)
        )
        assert rows.to_pydict() == {name: values * 2 for name, values in table.to_pydict().items()}


def test_a_checkpoint_is_copied_there_and_back_by_pyarrow(place: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_bytes(bytes(range(256)) * 50_000)
    filesystem, path = storage.resolve_filesystem(uris.join(place, "train"))
    filesystem.create_dir(path, recursive=True)  # as Ray Train does
    fs.copy_files(str(tmp_path / "checkpoint"), path, fs.LocalFileSystem(), filesystem)
    (tmp_path / "again").mkdir()
    fs.copy_files(path, str(tmp_path / "again"), filesystem, fs.LocalFileSystem())
    assert (tmp_path / "again" / "weights").read_bytes() == (tmp_path / "checkpoint" / "weights").read_bytes()
    storage.delete_tree(uris.join(place, "train"))
    assert list(storage.list_objects(uris.join(place, "train"))) == []


def test_a_file_is_uploaded_and_a_list_read_as_a_stream(place: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image_uri,category\ns3://b/1.jpg,pole\n")
    uri = uris.join(place, "list.csv")
    storage.upload(uri, tmp_path / "list.csv")
    rows = pa.Table.from_batches(read_columns(uri, select_known))
    assert rows.to_pydict() == {"image_uri": ["s3://b/1.jpg"], "category": ["pole"]}


def test_of_two_promotions_one_wins(place: str) -> None:
    first, second = "0" * 16, "1" * 16
    set_alias(place, "pole", alias="champion", detector_id=first, expected="none")
    with pytest.raises(ConflictError, match="champion of pole is 0000"):
        set_alias(place, "pole", alias="champion", detector_id=second, expected="none")
    set_alias(place, "pole", alias="champion", detector_id=second, expected=first)
    assert read_aliases(place, "pole") == {"champion": second}


@pytest.mark.parametrize("store", ["gs", "az"])
def test_a_missing_bucket_is_said_in_one_line(store: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(_FIXTURES[store])
    for call in (lambda uri: list(storage.list_objects(uri)), storage.read):
        with pytest.raises(MissingBucketError, match=f"bucket of {store}://no-such-bucket"):
            call(f"{store}://no-such-bucket/x")


def test_a_key_that_the_client_cannot_name_is_named_and_what_to_do_is_said(azure: str) -> None:
    with open_account().open_output_stream(f"{azure.removeprefix('az://')}/in/./dot.jpg") as file:
        file.write(b"photo")
    for call in (lambda: list(storage.list_objects(azure)), lambda: storage.read(f"{azure}/in/./dot.jpg")):
        with pytest.raises(StorageError, match=r"in/\./dot\.jpg.*rename or delete it"):
            call()


def test_slices_are_committed_to_one_table(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place.startswith("az://"):  # the emulator does not know where to begin a listing, and Azure does
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", os.environ["AZURE_STORAGE_ENDPOINT"].rsplit("/", 1)[0])
    first = commit_rows(place, [score_row("a"), score_row("b")])
    assert commit_rows(place, [score_row("a"), score_row("b")]).already
    other = commit_rows(place, [score_row("b", run_id="other"), score_row("c", run_id="other")], run_id="other")
    assert (first.rows, other.rows, other.dropped) == (2, 1, 1)
    assert list_photos(place) == ["a", "b", "c"]
