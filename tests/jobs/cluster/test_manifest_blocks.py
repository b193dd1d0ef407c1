"""Blocks of a manifest: every row is in one of them, and no photo in two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.cluster.manifest_blocks import ManifestBlocks, divide_photos
from jobs.tables.parquet import write_parquet
from jobs.tables.schema import MANIFEST

PART_ROWS = 32


def make_manifest(boxes: list[int]) -> pa.Table:
    """Makes MANIFEST rows of photos with so many boxes each."""
    uris = [f"file:///{photo:03d}.jpg" for photo, count in enumerate(boxes) for _ in range(count)]
    rows = [{"image_id": number, "image_uri": uri, "box": f"{number},0,1,1"} for number, uri in enumerate(uris)]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("block_rows", [1, 7, 40])
def test_each_row_is_read_once_and_each_photo_is_in_one_block(seed: int, block_rows: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    manifest = make_manifest(rng.choice([1, 2, 5, 50], size=rng.integers(1, 20), p=[0.3, 0.3, 0.3, 0.1]).tolist())
    files = []
    for first in range(0, len(manifest), PART_ROWS):
        files.append(f"file://{tmp_path}/part-{first}.parquet")
        write_parquet(manifest.slice(first, PART_ROWS), files[-1], row_group_rows=8)
    source = ManifestBlocks(files, part_rows=PART_ROWS, rows=len(manifest), block_rows=block_rows)
    read = [block for task in source.get_read_tasks(1) for block in task()]
    divided = divide_photos(manifest, block_rows)
    for blocks in (read, divided):
        assert pa.concat_tables(blocks).to_pylist() == manifest.to_pylist()
        photos = [set(block["image_uri"].to_pylist()) for block in blocks]
        assert sum(map(len, photos)) == len(set.union(*photos))
    assert len(read) == source.blocks
