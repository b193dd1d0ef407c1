"""MANIFEST rows made from photos that are known by name, and numbered anew once some are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pyarrow as pa

from jobs.tables.schema import MANIFEST

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


def make_manifest(photos: Iterable[Mapping[str, Any]], *, category: str) -> pa.Table:
    """Makes MANIFEST rows of photos, first tries of one category.

    Args:
        photos: image_uri and image_etag of each, and box where it is not the whole photo.
        category: of all of them.
    """
    rows = [
        {
            "image_id": number,
            "image_uri": photo["image_uri"],
            "image_etag": photo["image_etag"],
            "box": photo.get("box"),
            "category": category,
            "attempt": 1,
        }
        for number, photo in enumerate(photos)
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def fill_column(rows: Rows, name: str, value: str | None) -> Rows:
    """Returns rows whose column of this name, of text, has one value everywhere."""
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), pa.array([value] * len(rows), pa.string()))


def number_photos(manifest: pa.Table) -> pa.Table:
    """Returns MANIFEST rows with the row number as ``image_id``."""
    place = manifest.schema.get_field_index("image_id")
    return manifest.set_column(place, manifest.schema.field(place), pa.array(range(len(manifest)), pa.int64()))
