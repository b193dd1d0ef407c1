"""Fetching: sizes are known before bytes come, what waits is bounded, and one odd object costs one row."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.decoding.byte_budget import ByteBudget
from jobs.decoding.decoder import DEFAULT_LIMITS, share_decoder
from jobs.decoding.fetch import FetchDecode
from jobs.errors import ArchivedObjectError, EncryptionError
from tests.support.bad_objects import jpeg

SIZE = 64


def fetch(folder: Path, *, sizes: list[int | None] | None = None) -> dict[str, tuple[str | None, str]]:
    """Returns name -> status and reason code of the files in a folder, whose listing says ``sizes``."""
    listing = list_archive(f"file://{folder}", key_pattern="(?P<category>)")
    listing = listing.set_column(5, "category", [["x"] * len(listing)])
    if sizes is not None:
        listing = listing.set_column(3, "image_bytes", pa.array(sizes, pa.int64()))
    stage = FetchDecode(image_sizes={"x": SIZE}, max_pixels=10**7, concurrency=8)
    rows = stage(listing).to_pylist()
    return {row["image_uri"].rsplit("/", 1)[1]: (row["status"], (row["error"] or "").split(":")[0]) for row in rows}


def decode(folder: Path) -> list[dict[str, Any]]:
    """Returns the DECODED rows of the files in a folder."""
    listing = list_archive(f"file://{folder}", key_pattern="(?P<category>)")
    listing = listing.set_column(5, "category", [["x"] * len(listing)])
    return FetchDecode(image_sizes={"x": SIZE}, max_pixels=10**7, concurrency=8)(listing).to_pylist()  # type: ignore[no-any-return]


def make_huge(path: Path) -> None:
    """Makes a file of 200 GB that takes no room on disk."""
    with path.open("wb") as file:
        file.truncate(200 * 10**9)


@pytest.mark.parametrize("sizes", [None, [None, None], [100, 100]], ids=["listed", "unlisted", "listed wrongly"])
@pytest.mark.slow
def test_a_photo_of_200_gb_costs_one_row(sizes: list[int | None] | None, tmp_path: Path) -> None:
    make_huge(tmp_path / "huge.jpg")
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    assert fetch(tmp_path, sizes=sizes) == {
        "huge.jpg": ("unreadable", "too_many_bytes"),
        "photo.jpg": (None, ""),
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP", "BMP", "GIF"])
def test_a_row_knows_how_large_the_photo_is_as_stored(kind: str, tmp_path: Path) -> None:
    upright = Image.Exif()
    upright[274] = 6  # turned by a quarter
    how = {"exif": upright} if kind in ("JPEG", "PNG", "TIFF", "WebP") else {}
    Image.new("RGB", (96, 64), (9, 99, 199)).save(tmp_path / f"photo.{kind}", kind, **how)
    (row,) = decode(tmp_path)
    assert (row["status"], row["width"], row["height"]) == (None, 96, 64)


def test_a_row_knows_when_its_bytes_were_fetched_not_when_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    (tmp_path / "page.jpg").write_bytes(b"<html></html>")
    read, asked = storage.read_async, list[datetime]()

    async def wait(uri: str, *, max_bytes: int) -> tuple[bytes | memoryview, str]:
        asked.append(datetime.now(UTC))
        await asyncio.sleep(0.2)
        return await read(uri, max_bytes=max_bytes)

    monkeypatch.setattr(storage, "read_async", wait)
    page, photo = decode(tmp_path)
    assert (page["status"], page["width"], page["height"]) == ("unreadable", None, None)
    for row in (page, photo):
        assert abs((row["fetched_at"] - asked[0]).total_seconds()) < 0.1


def test_a_photo_that_was_not_fetched_has_no_size_and_no_time(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").symlink_to(tmp_path / "nothing")
    (row,) = decode(tmp_path)
    assert (row["status"], row["width"], row["fetched_at"]) == ("unreadable", None, None)


def test_a_photo_larger_than_listed_is_read_with_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.decoding.reading.MIN_EXPECTED_BYTES", 10)
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    assert fetch(tmp_path, sizes=[20]) == {"photo.jpg": (None, "")}


def test_bytes_that_wait_for_the_decoder_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.decoding.reading.MIN_EXPECTED_BYTES", 10)
    monkeypatch.setattr("jobs.decoding.turns.MAX_WAITING_BYTES", 3 * len(jpeg()))
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg())
    waiting, most = [0], [0]
    read, decode = storage.read_async, FetchDecode._read_and_decode

    async def count(self: FetchDecode, row: dict[str, object], *given: object, **named: object) -> object:
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        try:
            return await decode(self, row, *given, **named)  # type: ignore[arg-type]
        finally:
            waiting[0] -= 1

    monkeypatch.setattr(FetchDecode, "_read_and_decode", count)
    assert set(fetch(tmp_path).values()) == {(None, "")}
    assert most == [3]
    assert storage.read_async is read


def list_photos(folder: Path, count: int) -> pa.Table:
    """Writes photos and returns their manifest."""
    for number in range(count):
        (folder / f"{number:02d}.jpg").write_bytes(jpeg())
    listing = list_archive(f"file://{folder}", key_pattern="(?P<category>)")
    return listing.set_column(5, "category", [["x"] * len(listing)])


def test_batches_beside_each_other_share_what_may_be_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing, read, reading, most = list_photos(tmp_path, 12), storage.read_async, [0], [0]

    async def count(uri: str, *, max_bytes: int) -> tuple[bytes | memoryview, str]:
        reading[0] += 1
        most[0] = max(most[0], reading[0])
        await asyncio.sleep(0.02)
        reading[0] -= 1
        return await read(uri, max_bytes=max_bytes)

    monkeypatch.setattr(storage, "read_async", count)
    stage = FetchDecode(image_sizes={"x": SIZE}, max_pixels=10**7, concurrency=3)

    async def decode_all() -> list[pa.Table]:
        turns = stage.make_turns()
        return await asyncio.gather(*(stage.decode_batch(listing.slice(at, 4), turns) for at in (0, 4, 8)))

    decoded = asyncio.run(decode_all())
    assert [rows.column("image_uri") for rows in decoded] == [listing.slice(at, 4)["image_uri"] for at in (0, 4, 8)]
    assert most == [3]


def test_two_decoders_decode_beside_each_other_what_one_would(tmp_path: Path) -> None:
    listing = list_photos(tmp_path, 12)
    one, two = (
        FetchDecode(image_sizes={"x": SIZE}, max_pixels=10**7, concurrency=8, decoders=decoders)(listing)
        for decoders in (1, 2)
    )
    columns = ["image_uri", "status", "pixels", "width", "height"]
    assert two.select(columns) == one.select(columns)
    second = share_decoder(DEFAULT_LIMITS, 1)
    assert second.requests_sent > 0
    second.stop()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("notes.txt", b"hello there", ("not_a_photo", "not_an_image")),
        ("Makefile", b"", ("not_a_photo", "empty")),
        ("film.MP4", b"\0\0\0\x18ftypisom" + bytes(50), ("not_a_photo", "unsupported_format")),
        ("page.jpg", b"<html></html>", ("unreadable", "not_an_image")),
        ("empty.JPEG", b"", ("unreadable", "empty")),
        ("phone.heic", b"\0\0\0\x18ftypheic" + bytes(50), ("unreadable", "unsupported_format")),
        ("cut", jpeg()[:200], ("unreadable", "truncated")),
        ("whole", jpeg(), (None, "")),
    ],
)
def test_a_file_without_first_bytes_or_suffix_of_an_image_counts_apart(
    name: str, data: bytes, expected: tuple[str | None, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    assert fetch(tmp_path) == {name: expected}


@pytest.mark.parametrize(
    ("error", "code"),
    [(ArchivedObjectError("is archived"), "archived"), (EncryptionError("KMS.Disabled"), "encryption_key")],
    ids=["archived", "encrypted"],
)
def test_what_storage_refuses_has_a_reason_of_its_own(
    error: Exception, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(uri: str, *, max_bytes: int) -> tuple[bytes, str]:
        raise error

    (tmp_path / "x.jpg").write_bytes(b"x")
    monkeypatch.setattr(storage, "read_async", refuse)
    assert fetch(tmp_path) == {"x.jpg": ("unreadable", code)}


def test_many_names_that_are_no_files_do_not_end_a_run(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jpg").symlink_to(tmp_path / "nothing")
    assert set(fetch(tmp_path).values()) == {("unreadable", "refused")}


def test_a_budget_gives_room_in_order_and_takes_it_back_from_who_gives_up() -> None:
    async def run() -> list[str]:
        budget, done = ByteBudget(10), []

        async def hold(name: str, size_bytes: int) -> None:
            async with budget.hold(size_bytes):
                await asyncio.sleep(0.01)
                done.append(name)

        first = asyncio.create_task(hold("first", 10))
        await asyncio.sleep(0)
        given_up = asyncio.create_task(hold("given up", 10))
        large = asyncio.create_task(hold("larger than all", 99))
        small = asyncio.create_task(hold("small", 1))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(first, large, small)
        return done

    assert asyncio.run(asyncio.wait_for(run(), 5)) == ["first", "larger than all", "small"]
