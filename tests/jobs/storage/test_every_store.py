"""What a run asks of a store: local files, a real S3 server, a stub of Google's XML API, Microsoft's Azurite."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.awsrequest import AWSRequest
from pyarrow import fs

from jobs import storage
from jobs.archive.listing import list_pages
from jobs.archive.uri_list import read_columns, select_known
from jobs.detectors.aliases import read_aliases, set_alias
from jobs.errors import ConflictError, CredentialsError, MissingBucketError, MissingObjectError, RefusedError
from jobs.storage import arrow, azure, clients, google, uris
from jobs.storage.lease import hold_lease
from jobs.tables.parquet import read_schema, scan_parquet, write_parquet
from tests.jobs.results.score_rows import commit_rows, list_photos, score_row
from tests.support.clients import fresh_clients
from tests.support.servers.azurite import create_container, find_azurite, open_account, serve_azurite
from tests.support.servers.gcs_stub import serve_gcs

_ACCOUNT = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}


@pytest.fixture(autouse=True)
def _no_clients() -> Iterator[None]:
    """Clients are made anew, for each test has its own settings."""
    with fresh_clients():
        yield


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
def azure_place(azure_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A new container of Azurite."""
    for name, value in azure_settings.items():
        monkeypatch.setenv(name, value)
    return create_container()


_FIXTURES = {"s3": "bucket", "gs": "gcs", "az": "azure_place"}


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
    if place.startswith(("file://", "az://")):  # the others are asked for folders alone
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


ODD_KEYS = (
    "a//b.jpg",
    "a/b/c.jpg",
    "a/b//",
    "./dot.jpg",
    "dot.jpg",
    "up/../over.jpg",
    "over.jpg",
    "marker/",
    "marker/1.jpg",
    "line\nbreak.jpg",
    "tab\t.jpg",
    "100%.jpg",
    "100%25.jpg",
    " space #1 +.jpg",
    "ünï/\N{GRINNING FACE}.jpg",
    "?x=1&y.jpg",
    "~*{}[]'.jpg",
    "end./dot.",
    "zz.jpg",
)


def _put_odd_key(place: str, key: str) -> None:
    scheme, bucket, _ = uris.split(place)
    if scheme == "file":
        path = Path(place.removeprefix("file://")) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())
    elif scheme == "az" and "/." in key:
        with open_account().open_output_stream(f"{bucket}/{key}") as file:
            file.write(key.encode())
    elif scheme == "az":
        azure.open_container(bucket).upload_blob(key, key.encode())
    else:
        clients.open_boto3_client(scheme).put_object(Bucket=bucket, Key=key, Body=key.encode())


def test_odd_keys_are_listed_and_read_or_refused_by_name_and_end_nothing(place: str) -> None:
    keys = [f"in/{key}" for key in ODD_KEYS]
    if place.startswith("file://"):  # a file has no such name
        keys = [key for key in keys if not re.search(r"(^|/)\.{0,2}(/|$)", key)]
    elif not place.startswith("az://"):
        keys.append("/in/root.jpg")
    for key in keys:
        _put_odd_key(place, key)
    for whole in (place, uris.join(place, "in")):
        found = {info.uri: info for page in list_pages(whole, threads=3) for info in page}
        wanted = sorted(uris.join(place, key) for key in keys if whole == place or key.startswith("in/"))
        assert sorted([*found, *_find_lost_markers(wanted, found)]) == wanted
    for uri, info in found.items():
        key = uri[len(place) + 1 :]
        if place.startswith("az://") and re.search(r"/\.{1,2}/", key):
            with pytest.raises(RefusedError, match=rf"{re.escape(key)} cannot be named by clients of Azure.*rename it"):
                storage.read(uri)
        else:
            assert storage.read_with_etag(uri) == (key.encode(), info.etag)
            assert asyncio.run(storage.read_size_async(uri)) == info.size_bytes


def _find_lost_markers(wanted: list[str], found: dict[str, storage.ObjectInfo]) -> list[str]:
    """Returns the markers of folders that were looked into, which obstore leaves out of Azure's listing."""
    return [uri for uri in wanted if uri.startswith("az://") and uri.endswith("marker/") and uri not in found]


def test_a_slash_at_the_beginning_of_a_key_is_part_of_it(azure_place: str) -> None:
    for key in ("/x.jpg", "//y.jpg", "x.jpg", "in/z.jpg"):
        _put_odd_key(azure_place, key)
    found = sorted(info.uri[len(azure_place) :] for page in list_pages(azure_place) for info in page)
    assert found == ["///y.jpg", "//x.jpg", "/in/z.jpg", "/x.jpg"]


def test_pages_before_an_odd_key_are_not_listed_again(azure_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a.jpg", "b.jpg", "c//odd.jpg", "d.jpg"):
        _put_odd_key(azure_place, key)

    def list_two_pages(*_: object, **__: object) -> Iterator[list[dict[str, Any]]]:
        head = {"e_tag": "x", "size": 1, "last_modified": None}
        yield [{"path": "a.jpg", **head}, {"path": "b.jpg", **head}]
        raise ValueError('Error parsing Path "c//odd.jpg": Path "c//odd.jpg" contained empty path segment')

    monkeypatch.setattr("obstore.list", list_two_pages)
    found = [info.uri[len(azure_place) + 1 :] for info in storage.list_objects(azure_place)]
    assert found == ["a.jpg", "b.jpg", "c//odd.jpg", "d.jpg"]


def test_the_project_that_pays_is_named_to_google(gcs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")
    store: Any = clients.open_store("gs", "photos")
    assert store.client_options["default_headers"] == {"x-goog-user-project": b"payer"}
    sent: list[str] = []
    clients.open_boto3_client("gs").meta.events.register(
        "before-send.s3", lambda request, **_: sent.append(request.headers["x-goog-user-project"])
    )
    assert list(storage.list_objects(gcs)) == []
    assert sent == [b"payer"]


def test_a_request_to_google_carries_one_token(gcs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Credentials:
        def before_request(self, transport: object, method: str, url: str, headers: dict[str, str]) -> None:
            headers["Authorization"] = "Bearer renewed"

    authorize, request = google.Authorization(Credentials()), AWSRequest("GET", f"{gcs}/x")
    for _ in range(2):  # the second is a repeated try
        authorize(request)
    assert request.headers.get_all("Authorization") == ["Bearer renewed"]


@pytest.mark.parametrize(
    ("store", "error", "said"),
    [
        ("gs", "google.auth.exceptions.DefaultCredentialsError", "no credentials.*set GOOGLE_APPLICATION_CREDENTIALS"),
        ("az", "azure.core.exceptions.ClientAuthenticationError", "no credentials.*set AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_missing_credentials_are_said_with_the_store_s_own_variables(store: str, error: str, said: str) -> None:
    raised: Any = pydoc.locate(error)
    found = storage.translate_error(raised("none"), f"{store}://photos/x")
    assert isinstance(found, CredentialsError)
    assert re.search(said, str(found))


def test_azure_s_settings_are_read_as_obstore_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "plant")
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sv=1&sig=abc")
    assert azure.find_address() == "https://plant.blob.core.windows.net"
    assert azure.find_credential().signature == "sv=1&sig=abc"


def test_slices_are_committed_to_one_table(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place.startswith("az://"):  # the emulator does not know where to begin a listing, and Azure does
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", os.environ["AZURE_STORAGE_ENDPOINT"].rsplit("/", 1)[0])
    results = uris.join(place, "the results #1? ünï+&")
    first = commit_rows(results, [score_row("a"), score_row("b")])
    assert commit_rows(results, [score_row("a"), score_row("b")]).already
    other = commit_rows(results, [score_row("b", run_id="other"), score_row("c", run_id="other")], run_id="other")
    assert (first.rows, other.rows, other.dropped) == (2, 1, 1)
    assert list_photos(results) == ["a", "b", "c"]
    assert {info.uri[: len(results)] for info in storage.list_objects(place)} == {results}
