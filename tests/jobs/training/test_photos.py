"""Decoded photos in Ray's object store: in order, read by index, few blocks open."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.cluster.session import start_ray
from jobs.training import photos
from jobs.training.photos import BlockPhotos, decode_photos
from model.image import decode_image


def _blocks(sizes: tuple[int, ...], *, side: int) -> BlockPhotos:
    """Photo k is filled with k; the places are shuffled, as blocks come in any order."""
    count = sum(sizes)
    order = np.random.default_rng(0).permutation(count)
    places = np.empty((count, 2), np.int64)
    blocks, first = [], 0
    for block, rows in enumerate(sizes):
        kept = order[first : first + rows]
        places[kept] = [(block, row) for row in range(rows)]
        pixels = [np.full((3, side, side), photo, np.uint8).tobytes() for photo in kept]
        blocks.append(ray.put(pa.table({"pixels": pa.array(pixels, pa.large_binary())})))
        first += rows
    return BlockPhotos(blocks, places, side)


def test_photos_are_decoded_in_the_manifests_order_and_broken_ones_are_named(
    cluster: str, drawn: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "good"
    shutil.copytree(drawn / "data" / "insulator" / "train" / "good", folder)
    broken = folder / "0000-broken.jpg"
    broken.write_bytes(b"<html>")
    start_ray()
    manifest = list_archive(f"file://{folder}", key_pattern="(?P<category>)")
    found = decode_photos(manifest, size=64, max_pixels=10**8)
    ((uri, reason),) = found.left_out
    assert uri == f"file://{broken}"
    assert reason.startswith("not_an_image: ")
    readable = [uri for uri in manifest["image_uri"].to_pylist() if not uri.endswith("broken.jpg")]
    assert found.readable["image_uri"].to_pylist() == readable
    direct = torch.stack([decode_image(storage.read(uri), size=64) for uri in readable])
    assert torch.equal(found.photos.take(torch.arange(len(readable))), direct)


def test_photos_are_taken_by_index_in_the_order_asked_for(cluster: str) -> None:
    found = _blocks((3, 1, 4), side=2)
    assert len(found) == 8
    asked = torch.tensor([7, 0, 0, 5])
    assert found.take(asked)[:, 0, 0, 0].tolist() == asked.tolist()
    assert found.take(asked[:0]).shape == (0, 3, 2, 2)
    part = found.subset(np.array([6, 2]))
    assert len(part) == 2
    assert part.take(torch.tensor([1, 0]))[:, 2, 1, 1].tolist() == [2, 6]


def test_photos_in_any_order_open_each_block_once_and_few_at_a_time(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "MAX_OPEN_BLOCKS", 2)
    found = _blocks((2, 2, 2), side=2)
    opened: list[object] = []
    get = ray.get
    monkeypatch.setattr(ray, "get", lambda block: (opened.append(block), get(block))[1])
    there_and_back = torch.from_numpy(np.lexsort(found.places.T))  # block 0, 1, 2, then 0, 1, 2 again
    assert found.take(there_and_back)[:, 0, 0, 0].tolist() == there_and_back.tolist()
    assert len(opened) == 3
    assert len(found.open_blocks) == 2


def test_photos_travel_as_references(cluster: str) -> None:
    found = _blocks((4, 4), side=64)
    found.take(torch.arange(8))
    assert len(ray.cloudpickle.dumps(found)) < 64 * 64  # less than a channel of one photo

    @ray.remote(num_cpus=0)
    def read(found: BlockPhotos) -> list[int]:
        return list(found.take(torch.tensor([5, 1]))[:, 0, 0, 0].tolist())

    assert ray.get(read.remote(found)) == [5, 1]
