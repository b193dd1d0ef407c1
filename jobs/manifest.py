"""Verb and noun: what is in an archive, as MANIFEST rows.

``python -m jobs.manifest --archive URI --output FILE.parquet`` writes the listing alone, for a look before a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from jobs import storage
from jobs.archive import Kind, kind_of, listed
from jobs.cli import parse_config, run_verb
from jobs.config import ARCHIVE_HELP, DEFAULT_KEY_PATTERN, JobConfig, Uri
from jobs.counting import counted
from jobs.errors import EXIT_DONE, RequestError
from jobs.ordering import Ordering
from jobs.schema import MANIFEST
from jobs.scratch import Scratch
from jobs.table_files import write_files


class ManifestConfig(JobConfig):
    """List an archive into a manifest (Parquet): one row per object."""

    archive: Uri = Field(description=ARCHIVE_HELP)
    output: Uri = Field(description="Parquet file to write")
    key_pattern: str = Field(DEFAULT_KEY_PATTERN, description="regular expression of category, site and captured_at")


def list_archive(archive: str, *, key_pattern: str = DEFAULT_KEY_PATTERN) -> pa.Table:
    """Lists an archive as one table of MANIFEST rows, ordered by category and key: for those that fit into memory.

    Args:
        archive: a prefix, an S3 Inventory, or a list of URIs.
        key_pattern: regular expression of category, site and captured_at.

    Raises:
        RequestError: the archive holds nothing.
        MissingBucketError: its bucket does not exist.
    """
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        fill(ordering, archive, key_pattern=key_pattern)
        return pa.Table.from_batches(ordering.rows(), schema=MANIFEST).combine_chunks()


def fill(ordering: Ordering, archive: str, *, key_pattern: str) -> int:
    """Lists an archive into an ordering, each object once, saying how far it is; returns how many objects there are.

    Raises:
        RequestError: the archive holds nothing, or is not what its name says.
        MissingBucketError: its bucket does not exist.
    """
    ordering.add(counted(listed(archive, key_pattern=key_pattern), verb="listing"))
    if kind_of(archive) is not Kind.PREFIX:
        ordering.drop_duplicates()
    count = ordering.count()
    if not count:
        raise RequestError(f"the archive {archive} is empty: expected photos in it; check its spelling")
    return count


def write_parquet(table: pa.Table, uri: str, *, row_group_rows: int = 100_000) -> None:
    """Writes one table as one zstd Parquet object, in one atomic put."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=row_group_rows)
    storage.write(uri, buffer.getvalue())


def main(argv: Sequence[str]) -> int:
    """Lists the archive and writes the manifest."""
    config = parse_config(ManifestConfig, argv, prog="python -m jobs.manifest")
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        count = fill(ordering, config.archive, key_pattern=config.key_pattern)
        files = write_files(
            ordering.rows(), rows=count, name=lambda number: _file_name(config.output, number), folder=scratch.folder
        )
        for category, objects, size_bytes in ordering.sizes():
            print(f"{category or '(no category)'}: {objects} objects, {size_bytes / 1e6:.1f} MB")
    print(f"{count} rows in {', '.join(files)}")
    return EXIT_DONE


def _file_name(output: str, number: int) -> str:
    return f"{output.removesuffix('.parquet')}-{number:05d}.parquet" if number else output


if __name__ == "__main__":
    run_verb(main)
