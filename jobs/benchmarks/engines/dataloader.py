"""A torch DataLoader that reads through fsspec: workers fetch and decode with Pillow, the main process scores.

``python -m jobs.benchmarks.engines.dataloader REQUEST.json``
"""

from __future__ import annotations

from typing import cast

import fsspec
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

from jobs.benchmarks.engines.request import EngineRequest, Network, make_rows, run_engine, write_rows


class ArchivePhotos(Dataset[tuple[str, Tensor]]):
    """Photos below a folder of any storage, as (path, uint8 (3, H, W))."""

    def __init__(self, archive: str, *, size: int) -> None:
        """Lists them."""
        self._storage, folder = fsspec.core.url_to_fs(archive)
        self._size = size
        self._paths: list[str] = sorted(self._storage.find(folder))

    def __len__(self) -> int:
        """Counts them."""
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """Reads, decodes and resizes one."""
        with self._storage.open(self._paths[index]) as file:
            photo = transforms.pil_to_tensor(Image.open(file).convert("RGB"))
        return self._paths[index], cast(Tensor, transforms.resize(photo, [self._size, self._size], antialias=True))


def score_with_dataloader(request: EngineRequest) -> None:
    """Scores the photos of a request."""
    loader = DataLoader(
        ArchivePhotos(request.archive, size=request.image_size),
        batch_size=request.batch_photos,
        num_workers=request.processes,
        multiprocessing_context="spawn",  # the clients' threads do not survive a fork
        worker_init_fn=lower_threads,
    )
    network = Network(request.artifact)
    write_rows([make_rows(paths, network.score(images)) for paths, images in loader], request.output)


def lower_threads(_: int) -> None:
    """Leaves a worker one thread: there is one for each core."""
    torch.set_num_threads(1)


if __name__ == "__main__":
    run_engine(score_with_dataloader)
