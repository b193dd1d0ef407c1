"""Progress of a stream of batches in this process: a bar on a terminal, a line every few seconds in a job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

import pyarrow as pa

LINE_INTERVAL_S = 5.0


def counted(batches: Iterable[pa.RecordBatch], *, verb: str, total: int | None = None) -> Iterator[pa.RecordBatch]:
    """Passes batches on and says how many rows have gone by.

    Args:
        batches: the stream.
        verb: what happens to the rows ("listing").
        total: rows expected, where that is known.
    """
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    began = said_at = time.monotonic()
    with tqdm(total=total, desc=verb, unit="photo", disable=not on_terminal) as bar:
        rows = 0
        for batch in batches:
            yield batch
            rows += len(batch)
            bar.update(len(batch))
            if not on_terminal and time.monotonic() - said_at >= LINE_INTERVAL_S:
                said_at = time.monotonic()
                of = f"/{total}" if total is not None else ""
                print(f"{verb}: {rows}{of} photos after {said_at - began:.0f} s", flush=True)
