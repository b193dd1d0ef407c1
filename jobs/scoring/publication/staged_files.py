"""Which rows of a run are staged, and in which files: read from Ray Data's checkpoint while the pipeline writes it.

A file of the checkpoint appears once the staged file of the same name is whole, and holds its image_id.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from jobs import storage
from jobs.scoring.publication.slices import RunSlice
from jobs.scoring.run_folder import RunFolder
from jobs.tables.parquet import scan_parquet
from jobs.tables.schema import STAGED

_FILES_AT_ONCE = 16


class StagedFiles:
    """What the pipeline has staged of a run so far.

    Args:
        folder: of the run.
        rows: how many its manifest has.
    """

    def __init__(self, folder: RunFolder, rows: int) -> None:
        """Knows of nothing before the first `look`."""
        self._folder = folder
        self._is_staged = np.zeros(rows, bool)
        self._ranges: dict[str, tuple[int, int]] = {}

    def look(self) -> None:
        """Reads what has come since the last look."""
        names = {name_file(info.uri): info.uri for info in storage.list_objects(self._folder.checkpoint)}
        new = {name: uri for name, uri in names.items() if name not in self._ranges and is_whole(uri)}
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for name, ids in zip(new, pool.map(read_image_ids, new.values()), strict=True):
                self._is_staged[ids] = True
                self._ranges[name] = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)

    def has_all(self, part: RunSlice) -> bool:
        """Says whether every row of a slice is staged."""
        return bool(self._is_staged[part.first : part.end].all())

    def list_files(self, part: RunSlice) -> list[str]:
        """Lists the staged files that have rows of a slice, sorted; they may have rows of its neighbours too."""
        wanted = {name for name, (low, high) in self._ranges.items() if low < part.end and high >= part.first}
        found = [info.uri for info in storage.list_objects(self._folder.rows) if info.uri.endswith(".parquet")]
        # A write task that makes several files adds a number to the name.
        return sorted(uri for uri in found if {name_file(uri), name_file(uri).rpartition("-")[0]} & wanted)


def name_file(uri: str) -> str:
    """Returns the name of a Parquet file without its folder and suffix."""
    return uri.rsplit("/", 1)[1].removesuffix(".parquet")


def is_whole(uri: str) -> bool:
    """Says whether a file of the checkpoint speaks of a staged file that is whole."""
    return uri.endswith(".parquet") and not uri.endswith(".pending.parquet")


def read_image_ids(uri: str) -> npt.NDArray[np.int64]:
    """Reads the image_id of each row that a file of the checkpoint holds, (rows,)."""
    batches = scan_parquet([uri], columns=["image_id"], schema=STAGED)
    found = [batch.column("image_id").to_numpy() for batch in batches]
    return np.concatenate(found) if found else np.empty(0, np.int64)
