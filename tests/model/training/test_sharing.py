"""What several workers share, and the order in which photos that lie in blocks are read."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from model.config import OptimizerConfig
from model.training.photos import MAX_MIXED_BYTES, BlockedPhotos, InMemory, draw_order
from model.training.workers import compute_together

PHOTOS_PER_BLOCK, BLOCKS, OPEN = 32, 50, 32


class _Blocked:
    """Photos that are not there, in blocks."""

    groups = None

    def __init__(self, size_bytes: int = 0) -> None:
        self._size_bytes = size_bytes

    def count_bytes(self) -> int:
        return self._size_bytes

    def __len__(self) -> int:
        return PHOTOS_PER_BLOCK * BLOCKS

    def take(self, photos: Tensor) -> Tensor:
        raise AssertionError("nobody looks at them")

    def list_blocks(self) -> npt.NDArray[np.int64]:
        return np.arange(len(self), dtype=np.int64) // PHOTOS_PER_BLOCK


def _count_openings(order: Tensor, *, most: int) -> int:
    """Counts how often a block is opened by a reader that keeps so many open."""
    opened, found = OrderedDict[int, None](), 0
    for block in (order // PHOTOS_PER_BLOCK).tolist():
        if block not in opened:
            found += 1
            if len(opened) == most:
                opened.popitem(last=False)
        opened[block] = None
        opened.move_to_end(block)
    return found


def test_a_shuffle_of_blocks_opens_each_once_and_takes_each_photo_once() -> None:
    photos = _Blocked()
    assert isinstance(photos, BlockedPhotos)
    order = draw_order(np.random.default_rng(0), photos, shuffle="blocks")
    assert sorted(order.tolist()) == list(range(len(photos)))
    assert _count_openings(order, most=OPEN) == BLOCKS
    assert (order[:100] // PHOTOS_PER_BLOCK).unique().numel() > 4  # mixed, not block by block
    again = draw_order(np.random.default_rng(1), photos, shuffle="blocks")
    assert not torch.equal(order, again)


def test_the_order_of_one_worker_is_what_it_was_where_nothing_is_asked_for() -> None:
    expected = np.random.default_rng(0).permutation(len(_Blocked()))
    found = draw_order(np.random.default_rng(0), _Blocked(), shuffle="photos")
    assert found.tolist() == expected.tolist()
    assert _count_openings(found, most=OPEN) > 10 * BLOCKS


@pytest.mark.parametrize(("size_bytes", "same_as"), [(MAX_MIXED_BYTES, "photos"), (MAX_MIXED_BYTES + 1, "blocks")])
def test_a_set_that_may_not_fit_in_memory_is_read_block_by_block_unasked(
    size_bytes: int, same_as: Literal["photos", "blocks"]
) -> None:
    found = draw_order(np.random.default_rng(0), _Blocked(size_bytes), shuffle=OptimizerConfig().shuffle)
    assert torch.equal(found, draw_order(np.random.default_rng(0), _Blocked(), shuffle=same_as))


def test_photos_that_lie_in_no_blocks_are_mixed_as_a_whole() -> None:
    photos = InMemory(torch.zeros(5, 3, 1, 1, dtype=torch.uint8))
    found = draw_order(np.random.default_rng(0), photos, shuffle="blocks")
    assert found.tolist() == np.random.default_rng(0).permutation(5).tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_compute_runs_of_rows_and_all_get_all_of_them(
    count: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[int, list[int]] = {}
    sent: dict[int, Tensor] = {}
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: workers)

    def gather(parts: list[Tensor], mine: Tensor) -> None:
        sent[rank] = mine
        for number, part in enumerate(parts):
            part.copy_(sent.get(number, part))

    def compute(rows: Tensor) -> Tensor:
        asked[rank] = rows.tolist()
        return rows[:, None].float() * 10

    monkeypatch.setattr(dist, "all_gather", gather)
    for _ in range(2):  # in the second round everybody has sent
        for rank in range(workers):
            monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
            found = compute_together(compute, count)
    assert found.flatten().tolist() == [10 * row for row in range(count)]
    assert sum(asked.values(), []) == list(range(count))  # noqa: RUF017  # short
    assert {part.shape for part in sent.values()} == {(-(-count // workers), 1)}


def test_a_batch_of_each_worker_makes_a_step_that_grows_with_them() -> None:
    assert [OptimizerConfig(batch_size=24).count_batch(workers) for workers in (1, 8)] == [24, 24]
    assert [OptimizerConfig(batch_size=24, batch_of="worker").count_batch(workers) for workers in (1, 8)] == [24, 192]
