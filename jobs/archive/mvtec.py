"""Data sets in the layout of MVTec AD, the one place that knows it.

``<category>/train/good/`` holds flawless photos to learn from, ``<category>/test/<label>/`` labelled ones to judge by,
and ``<category>/validation/<label>/`` labelled ones to choose by, which most data sets do not have.
https://www.mvtec.com/company/research/datasets/mvtec-ad
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.kinds import names_categories
from jobs.archive.manifest import list_archive
from jobs.archive.selection import Selection
from jobs.errors import EmptyArchiveError, RequestError
from jobs.storage import uris
from jobs.tables.manifest import fill_column, number_photos
from jobs.tables.schema import MANIFEST
from jobs.tables.text import make_printable

FLAWLESS = "good"
"""Label of flawless photos."""
SPLITS = ("train", "validation", "test")
LABELLED = MANIFEST.append(pa.field("split", pa.string())).append(pa.field("label", pa.string()))
"""MANIFEST, the split of each photo (one of SPLITS) and its label: FLAWLESS, or the name of its defect."""

_SPLIT_AND_LABEL = r"(?P<site>(?i:train/good)|(?i:validation|test)/[^/]+)/"


def list_labelled(data: str, *, category: str | None = None, selection: Selection | None = None) -> pa.Table:
    """Lists a data set as LABELLED rows, ordered by category and key; what lies elsewhere in it is left out.

    Args:
        data: folder of the categories.
        category: the one to list; None for all.
        selection: which objects count; its patterns are matched below the folder that is listed.

    Raises:
        RequestError: a folder is called Good or TEST: on most systems those are other folders than good and test.
    """
    folder, name = (data, "(?P<category>[^/]+)/") if category is None else (uris.join(data, category), "(?P<category>)")
    try:
        rows = list_archive(folder, key_pattern=name + _SPLIT_AND_LABEL, selection=selection)
    except EmptyArchiveError:
        return LABELLED.empty_table()
    rows = rows if category is None else fill_column(rows, "category", category)
    rows = rows.filter(pc.is_valid(rows["site"]))  # which the key pattern takes for split and label, as one
    check_letters(rows)
    parts = [site.split("/") for site in rows["site"].to_pylist()]
    splits, labels = (pa.array([part[number] for part in parts], pa.string()) for number in (0, 1))
    return pa.table([*fill_column(rows, "site", None).columns, splits, labels], schema=LABELLED)


def check_letters(rows: pa.Table) -> None:
    """Refuses splits and flawless labels in other letters, which would pass for none, or for defects.

    Raises:
        RequestError: it names the first such folder.
    """
    for site in pc.unique(rows["site"]).to_pylist():
        split, label = site.split("/")
        right = f"{split.lower()}/{FLAWLESS if label.lower() == FLAWLESS else label}"
        if site != right:
            example = rows["image_uri"][pc.index(rows["site"], site).as_py()].as_py()
            folder = example[: example.index(f"/{site}/") + 1 + len(site)]
            raise RequestError(f"{make_printable(folder)} must be called {right}, in these letters: rename it")


def select_split(rows: pa.Table, split: str) -> pa.Table:
    """Returns the LABELLED rows of one split."""
    return rows.filter(pc.equal(rows["split"], split))


def list_as_category(
    photos: str, category: str, *, selection: Selection | None = None, boxes: str | None = None
) -> pa.Table:
    """Lists an archive in any layout as MANIFEST rows of one category; of a COCO file, its boxes of that category.

    Args:
        photos: the archive.
        category: of all its photos.
        selection: which objects count.
        boxes: COCO file of boxes of photos below the archive.

    Raises:
        EmptyArchiveError: it holds nothing, or nothing of that category.
    """
    rows = list_archive(photos, key_pattern="(?P<category>)", selection=selection, boxes=boxes)
    if names_categories(photos, boxes):
        rows = select_category(rows, category, place=boxes or photos)
    return fill_column(rows, "category", category)


def select_category(rows: pa.Table, category: str, *, place: str) -> pa.Table:
    """Returns the MANIFEST rows of a category, and those of none, numbered anew; see `list_as_category` for errors."""
    kept = rows.filter(pc.fill_null(pc.equal(rows["category"], category), True))
    if not len(kept):
        known = ", ".join(pc.unique(rows["category"]).to_pylist())
        raise EmptyArchiveError(f"{place} has no box of {category}: its categories are {make_printable(known)}")
    return number_photos(kept)


def locate_flawless(data: str, category: str, *, folder: str | None = None) -> str:
    """Returns the URI of a category's flawless photos.

    Args:
        data: folder of the categories.
        category: one of them.
        folder: where the photos lie below ``data``; default: ``<category>/train/good``.
    """
    return uris.join(data, folder or f"{category}/train/{FLAWLESS}")
