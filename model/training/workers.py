"""What several training workers share: batches, sums, features and attention. On one worker nothing changes.

Plain torch.distributed: whoever starts several workers has started its process group.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def take_share(batch: Tensor, *, rank: int, world_size: int) -> tuple[Tensor, float]:
    """Returns one worker's part of a global batch, and the weight of its mean loss.

    Workers may get one photo more or less than others, and DistributedDataParallel takes the plain mean of their
    gradients. The weight len(share) * world_size / len(batch) makes that mean the gradient of the whole batch. A worker
    for whom nothing is left repeats the first photo with weight 0, because it must take part in exchanging gradients.

    Args:
        batch: (B,) photo indices, B >= 1, the same on every worker.
        rank: this worker.
        world_size: number of workers.
    """
    share = batch[rank::world_size]
    if len(share) == 0:
        return batch[:1], 0.0
    return share, len(share) * world_size / len(batch)


def sum_over_workers(values: Tensor) -> Tensor:
    """Sums ``values`` over all workers, on every worker, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def compute_together(compute: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Computes the rows 0..count - 1, each worker its share; returns all rows on every worker.

    A share is a run of rows, so that a worker opens only the blocks that its own photos lie in.

    Args:
        compute: maps indices (B,), B >= 0, to rows (B, ...).
        count: number of rows.
    """
    if not dist.is_initialized():
        return compute(torch.arange(count))
    share = -(-count // dist.get_world_size())
    first = dist.get_rank() * share
    computed = compute(torch.arange(count)[first : first + share])
    missing = computed.new_zeros((share - len(computed), *computed.shape[1:]))
    mine = torch.cat([computed, missing])  # all must send as many rows; the last workers may have fewer
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts)[:count]


def copy_from_first(module: nn.Module) -> None:
    """Gives every worker the first one's parameters and buffers."""
    if dist.is_initialized():
        with torch.no_grad():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)
