"""Command: lists an archive into a manifest, one row per object.

``python -m jobs.manifest --archive URI --output FILE.parquet`` writes the listing alone, for a look before a run.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from jobs.archive.manifest import fill_ordering
from jobs.archive.ordering import Ordering
from jobs.archive.selection import Selection
from jobs.cli import parse_config, run_command
from jobs.config import ARCHIVE_HELP, BOXES, DEFAULT_KEY_PATTERN, EXCLUDE, INCLUDE, JobConfig, Patterns, Uri
from jobs.errors import EXIT_DONE
from jobs.tables.files import write_files
from jobs.tables.scratch import Scratch
from jobs.tables.text import make_printable


class ManifestConfig(JobConfig):
    """List an archive into a manifest (Parquet): one row per object, or per box."""

    archive: Uri = Field(description=ARCHIVE_HELP)
    boxes: Uri | None = BOXES
    output: Uri = Field(description="Parquet file to write")
    key_pattern: str = Field(DEFAULT_KEY_PATTERN, description="regular expression of category, site and captured_at")
    include: Patterns = INCLUDE
    exclude: Patterns = EXCLUDE


def main(argv: Sequence[str]) -> int:
    """Lists the archive and writes the manifest."""
    config = parse_config(ManifestConfig, argv, prog="python -m jobs.manifest")
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        selection = Selection(config.include, config.exclude)
        count = fill_ordering(
            ordering, config.archive, key_pattern=config.key_pattern, selection=selection, boxes=config.boxes
        )
        files = write_files(
            ordering.stream_rows(),
            rows=count,
            name=lambda number: name_file(config.output, number),
            folder=scratch.folder,
        )
        for category, objects, size_bytes in ordering.sum_sizes():
            print(f"{make_printable(category or '(no category)')}: {objects} objects, {size_bytes / 1e6:.1f} MB")
    print(f"{count} rows in {', '.join(files)}")
    return EXIT_DONE


def name_file(output: str, number: int) -> str:
    """Returns the URI of the first, second ... file, which ``number`` counts as 0, 1 ..."""
    return f"{output.removesuffix('.parquet')}-{number:05d}.parquet" if number else output


if __name__ == "__main__":
    run_command(main)
