"""The local file system as a store: every name is listed and read, and none ends a listing."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import storage
from jobs.archive.listing import list_pages
from jobs.archive.manifest import list_archive
from jobs.errors import MissingObjectError, RefusedError, StorageError, TooLargeError
from jobs.storage import local_files, uris

ODD_NAMES = (
    b"photo.jpg#1",
    b"#1",
    b"M\xfcnchen.jpg",
    b"\xff\xfe",
    "\uf7fc.jpg".encode(),
    b"tab\t.jpg",
    b"line\n.jpg",
    b"%20.jpg",
)


def put(folder: Path, name: bytes, data: bytes) -> None:
    """Writes a file whose name need not be UTF-8."""
    (folder / os.fsdecode(name)).write_bytes(data)


def list_uris(folder: Path) -> list[str]:
    return [info.uri for page in list_pages(uris.normalize(str(folder))) for info in page]


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_a_file_of_any_name_is_listed_and_read_beside_its_neighbours(name: bytes, tmp_path: Path) -> None:
    for each, data in ((name, b"photo"), (b"other.jpg", b"other")):
        put(tmp_path, each, data)
    found = {info.uri: info for info in storage.list_objects(f"file://{tmp_path}")}
    assert sorted(storage.read(uri) for uri in found) == [b"other", b"photo"]
    odd = next(uri for uri in found if not uri.endswith("/other.jpg"))
    assert storage.read_with_etag(odd)[1] == found[odd].etag
    assert pa.array([odd]).to_pylist() == [odd]  # a table can hold it


def test_two_names_that_differ_in_bytes_differ_in_tables(tmp_path: Path) -> None:
    names = (b"\xfc", "\uf7fc".encode(), "\xfc".encode())
    for name in names:
        put(tmp_path, name, name)
    found = list_uris(tmp_path)
    assert len(set(found)) == 3
    assert {storage.read(uri) for uri in found} == set(names)


def test_a_folder_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    (folder / "cap").mkdir(parents=True)
    put(folder / "cap", b"1.jpg", b"x")
    rows = list_archive(uris.normalize(str(folder)))
    assert rows["category"].to_pylist() == ["cap"]
    assert storage.read(rows["image_uri"][0].as_py()) == b"x"


def test_links_that_lead_back_are_not_followed_and_others_are(tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    for folder in (archive / "a" / "b", elsewhere):
        folder.mkdir(parents=True)
        (folder / "x.jpg").write_bytes(b"x")
    for name, target in (
        ("a/up", archive),
        ("a/b/over", tmp_path),
        ("a/b/self", archive / "a" / "b"),
        ("far", elsewhere),
    ):
        (archive / name).symlink_to(target)
    assert sorted(list_uris(archive)) == [f"file://{archive}/a/b/x.jpg", f"file://{archive}/far/x.jpg"]


def test_what_is_no_file_is_a_row_that_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = list_uris(tmp_path)
    assert sorted(uri.rsplit("/", 1)[1] for uri in found) == ["circle.jpg", "gone.jpg", "pipe.jpg"]
    for uri in found:
        with pytest.raises(RefusedError, match=r"is no file|is a link to nothing|expected a file"):
            storage.read(uri)


def test_a_time_that_no_calendar_has_ends_no_listing(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"x")
    os.utime(tmp_path / "x.jpg", (2**36, 2**36))
    (info,) = storage.list_objects(f"file://{tmp_path}")
    assert info.size_bytes == 1


def test_a_file_that_goes_while_its_folder_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("goes.jpg", "stays.jpg"):
        (tmp_path / name).write_bytes(b"1")
    real = local_files.describe

    def describe(entry: os.DirEntry[bytes]) -> tuple[str, str, int, datetime]:
        (tmp_path / "goes.jpg").unlink(missing_ok=True)
        return real(entry)

    monkeypatch.setattr(local_files, "describe", describe)
    assert [info.uri for info in storage.list_objects(f"file://{tmp_path}")] == [f"file://{tmp_path}/stays.jpg"]
    assert [info.uri for info in storage.list_level(f"file://{tmp_path}")[0]] == [f"file://{tmp_path}/stays.jpg"]


def test_a_folder_of_very_many_files_is_taken_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.storage.local_files.MAX_LEVEL_FILES", 5)
    monkeypatch.setattr("jobs.storage.local_files.PAGE_FILES", 2)
    (tmp_path / "below").mkdir()
    for name in ("below/x.jpg", *(f"{number}.jpg" for number in range(7))):
        (tmp_path / name).write_bytes(b"x")
    assert len(list_uris(tmp_path)) == 8
    assert max(map(len, list_pages(f"file://{tmp_path}"))) <= 2


def test_the_entity_tag_is_the_one_of_earlier_versions(tmp_path: Path) -> None:
    # Rows of earlier runs hold obstore's: with another one every photo would be scored again.
    import obstore
    from obstore.store import LocalStore

    (tmp_path / "x.jpg").write_bytes(b"photo")
    before = str(obstore.head(LocalStore("/"), f"{tmp_path}/x.jpg".removeprefix("/"))["e_tag"]).strip('"')
    assert [info.etag for info in storage.list_objects(f"file://{tmp_path}")] == [before]


async def read_at_most(uri: str, max_bytes: int) -> None:
    await storage.read_async(uri, max_bytes=max_bytes)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    import asyncio

    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(200 * 10**9)  # takes no room on disk
    with pytest.raises(TooLargeError, match="has 200000000000 bytes: at most 1000 are read") as caught:
        asyncio.run(read_at_most(f"file://{tmp_path}/huge.jpg", 1000))
    assert caught.value.size_bytes == 200 * 10**9
    assert asyncio.run(storage.read_size_async(f"file://{tmp_path}/huge.jpg")) == 200 * 10**9


def test_a_file_written_whole_has_the_permissions_of_this_process(tmp_path: Path) -> None:
    storage.write(f"file://{tmp_path}/new/x.json", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "new" / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.json"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match="x"):
        storage.write(f"file://{tmp_path}/x", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingObjectError, match="does not exist"):
        storage.read(f"file://{tmp_path}/none/x.jpg")


def test_a_listed_name_that_no_file_can_have_is_refused_and_not_taken_for_a_storage_that_is_away(
    tmp_path: Path,
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    for name in ("x" * 300, "a\0b", "loop", "nowhere", "loop/below"):
        uri = f"file://{tmp_path}/{name}"
        with pytest.raises(RefusedError, match=r"no file|no name of a file|link to nothing"):
            asyncio.run(storage.read_size_async(uri))
        with pytest.raises(RefusedError, match=r"no file|no name of a file|link to nothing"):
            storage.read(uri)
