"""Boxes of photos: each photo is fetched and decoded once, and a box that cannot be had costs its own row alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from jobs import storage
from jobs.decoding.decoder import DEFAULT_LIMITS, share_decoder
from jobs.decoding.fetch import MIN_TELLING_BATCH, FetchDecode, stack_images
from jobs.errors import StorageError
from jobs.tables.schema import MANIFEST
from model.image import decode_image
from tests.support.bad_objects import encode, photo

SIZE = 64
BOXES = ["0,0,40,30", "10,20,40,40", "90,50,6,14", None]


def list_boxes(folder: Path, photos: int, boxes: list[str | None]) -> pa.Table:
    """Writes photos and returns a manifest of boxes of each of them."""
    for number in range(photos):
        Image.new("RGB", (96, 64), (number, 99, 199)).save(folder / f"{number}.png")
    rows = [
        {"image_id": number, "image_uri": f"file://{folder}/{number // len(boxes)}.png", "category": "x", "box": box}
        for number, box in enumerate(boxes * photos)
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the GETs of each object from now on."""
    reads, read = Counter[str](), storage.read_async

    async def count(uri: str, *, max_bytes: int) -> tuple[bytes | memoryview, str]:
        reads[uri] += 1
        return await read(uri, max_bytes=max_bytes)

    monkeypatch.setattr(storage, "read_async", count)
    return reads


def make_stage() -> FetchDecode:
    return FetchDecode(image_sizes={"x": SIZE}, max_pixels=10**7, concurrency=8)


def test_a_photo_is_fetched_and_decoded_once_whatever_batches_its_boxes_fall_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, stage = list_boxes(tmp_path, 7, ["0,0,40,30", "9,9,9,9", "20,20,40,40"]), make_stage()
    reads, asked = count_reads(monkeypatch), share_decoder(DEFAULT_LIMITS).requests_sent
    rows = pa.concat_tables([stage(manifest.slice(first, 4)) for first in range(0, len(manifest), 4)])
    assert rows["error"].null_count == len(manifest) == 21
    assert len(reads) == 7
    assert set(reads.values()) == {1}
    assert share_decoder(DEFAULT_LIMITS).requests_sent - asked <= 7 + len(manifest) // 4


def test_a_photo_is_fetched_once_though_batches_with_its_boxes_are_begun_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, stage = list_boxes(tmp_path, 7, ["0,0,40,30", "9,9,9,9", "20,20,40,40"]), make_stage()
    reads = count_reads(monkeypatch)

    async def decode_all() -> list[pa.Table]:
        turns = stage.make_turns()
        parts = [manifest.slice(first, 4) for first in range(0, len(manifest), 4)]
        return await asyncio.gather(*(stage.decode_batch(part, turns) for part in parts))

    assert pa.concat_tables(asyncio.run(decode_all()))["error"].null_count == len(manifest)
    assert set(reads.values()) == {1}


def test_a_box_gives_the_pixels_of_its_crop_as_a_file(tmp_path: Path) -> None:
    manifest = list_boxes(tmp_path, 1, BOXES)
    photo().save(tmp_path / "0.png")
    rows = make_stage()(manifest)
    pixels = stack_images(rows["pixels"], size=SIZE)
    for box, found in zip(BOXES, pixels, strict=True):
        x, y, width, height = map(int, (box or "0,0,96,64").split(","))
        crop = encode(photo().crop((x, y, x + width, y + height)), "PNG")
        assert (found == decode_image(crop, size=SIZE).numpy()).all()
    assert rows["box"].to_pylist() == BOXES
    assert rows["width"].to_pylist() == [96] * 4


def test_a_box_that_cannot_be_had_costs_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[str | None] = ["0,0,9,9", "", "no box", "1,2,0,5", "200,200,9,9", "-5,-5,9,9"]
    manifest, reads = list_boxes(tmp_path, 1, boxes), count_reads(monkeypatch)
    rows = make_stage()(manifest)
    codes = [(error or "").split(":")[0] for error in rows["error"].to_pylist()]
    assert codes == ["", "bad_box", "bad_box", "bad_box", "box_outside", "box_outside"]
    assert rows["pixels"].null_count == 5
    assert reads.total() == 1


def test_many_boxes_of_one_photo_that_cannot_be_reached_do_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(uri: str, *, max_bytes: int) -> tuple[bytes | memoryview, str]:
        raise StorageError("away")

    manifest = list_boxes(tmp_path, 1, [f"{x},0,9,9" for x in range(2 * MIN_TELLING_BATCH)])
    monkeypatch.setattr(storage, "read_async", refuse)
    assert set(make_stage()(manifest)["status"].to_pylist()) == {"unreadable"}


@pytest.mark.slow
def test_a_photo_with_more_boxes_than_one_message_holds_gives_a_row_for_each(tmp_path: Path) -> None:
    manifest = list_boxes(tmp_path, 1, [f"{n % 80},{n // 80},9,9" for n in range(1000)])
    assert make_stage()(manifest)["error"].null_count == 1000
