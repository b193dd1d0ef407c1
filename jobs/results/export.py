"""The latest state as one plain Parquet file, for tools that do not read Delta Lake."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import RequestError
from jobs.results.delta import ROWS, locate_table
from jobs.results.known import select_fields, stream_latest
from jobs.results.maintenance import require_table
from jobs.storage import uris
from jobs.tables.files import ROW_GROUP_ROWS, regroup_batches


def export_latest(results: str, output: str) -> int:
    """Writes the latest row of each photo and box into one Parquet file; returns how many rows it has.

    The file is finished on local disk and then put, so that none is seen half written.

    Raises:
        JobError: the local disk is full.
        RequestError: there is no table, or the output would lie in it.
        StorageError: a file of the table is lost, or the storage refused.
    """
    check_output(results, output)
    require_table(results)
    columns, rows = ROWS.names, 0
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-export-") as folder:
        path = Path(folder) / "latest.parquet"
        with pq.ParquetWriter(path, select_fields(columns), compression="zstd") as writer:
            for group in regroup_batches(stream_latest(results, columns), size_rows=ROW_GROUP_ROWS):
                writer.write_table(group)
                rows += len(group)
        storage.upload(output, path)
    return rows


def check_output(results: str, output: str) -> None:
    """Raises RequestError for a file that would lie in the result table, where plain readers would count its rows."""
    table = locate_table(results)
    if output == table or output.startswith(f"{table}/"):
        raise RequestError(
            f"--output {output} lies in the result table, whose plain readers would count its rows too: give another "
            f"place, such as {uris.join(results, 'latest.parquet')}"
        )
