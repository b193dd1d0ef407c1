"""What is in an archive, as MANIFEST rows."""

from __future__ import annotations

import sys

import pyarrow as pa

from jobs.archive.absence import explain_absence
from jobs.archive.kinds import is_live_listing, stream_archive
from jobs.archive.ordering import Ordering
from jobs.archive.selection import Selection
from jobs.cluster.progress import follow_rows
from jobs.config import DEFAULT_KEY_PATTERN
from jobs.errors import EmptyArchiveError
from jobs.tables.manifest import fill_column
from jobs.tables.schema import MANIFEST
from jobs.tables.scratch import Scratch


def list_archive(
    archive: str,
    *,
    key_pattern: str = DEFAULT_KEY_PATTERN,
    selection: Selection | None = None,
    boxes: str | None = None,
) -> pa.Table:
    """Lists an archive as one table of MANIFEST rows, ordered by category and key: for those that fit into memory.

    Args:
        archive: a prefix, an S3 Inventory, or a list of URIs.
        key_pattern: regular expression of category, site and captured_at.
        selection: which objects count.
        boxes: COCO file of boxes below the archive; None lists whole photos, and the boxes of a list.

    Raises:
        EmptyArchiveError: the archive holds nothing.
        MissingBucketError: its bucket does not exist.
    """
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        fill_ordering(ordering, archive, key_pattern=key_pattern, selection=selection, boxes=boxes)
        return pa.Table.from_batches(ordering.stream_rows(), schema=MANIFEST).combine_chunks()


def fill_ordering(
    ordering: Ordering,
    archive: str,
    *,
    key_pattern: str,
    selection: Selection | None = None,
    category: str | None = None,
    boxes: str | None = None,
) -> int:
    """Lists an archive into an ordering, each object once, saying how far it is; returns how many objects there are.

    What the selection leaves out is said on stderr, by its kind.

    Args:
        ordering: takes the rows.
        archive: a prefix, an S3 Inventory, or a list of URIs.
        key_pattern: regular expression of category, site and captured_at.
        selection: which objects count.
        category: of every object; None for what the key or the list says.
        boxes: see `list_archive`.

    Raises:
        EmptyArchiveError: the archive holds nothing.
        RequestError: it is not what its name says.
        MissingBucketError: its bucket does not exist.
    """
    selection = selection or Selection()
    batches = stream_archive(archive, key_pattern=key_pattern, selection=selection, boxes=boxes)
    listed = follow_rows(batches, activity="listing")
    ordering.add_batches(listed if category is None else (fill_column(batch, "category", category) for batch in listed))
    if selection.left_out:
        print(selection.summarize(), file=sys.stderr, flush=True)
    if not is_live_listing(archive, boxes):
        ordering.drop_duplicates()
    count = ordering.count()
    if not count:
        raise EmptyArchiveError(f"no photo in {boxes or archive}: {explain_emptiness(archive, selection, boxes)}")
    return count


def explain_emptiness(archive: str, selection: Selection, boxes: str | None = None) -> str:
    """Says why an archive has no photo: what it has is left out, or it is empty or misspelt."""
    if selection.left_out:
        return f"it holds no photo ({selection.summarize()})"
    if is_live_listing(archive, boxes):
        return explain_absence(archive)
    return "it is empty, expected a row for each photo"
