"""The table of maps beside the scores: which photos have an overlay and float maps, and where these are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from jobs.results.side_table import append_rows, read_table
from jobs.storage import uris
from jobs.tables.schema import MAPS

TABLE = "maps"
"""Folder of the table, below the results."""
FOLDER = "overlays"
"""Folder of the files, below the results: not below the table, where a VACUUM removes what its log does not name."""

Key = tuple[str, str | None, str | None]
"""image_uri, image_etag and box of a photo."""


def locate_maps(results: str) -> str:
    """Returns the URI of the table of maps."""
    return uris.join(results, TABLE)


def locate_overlays(results: str, run_id: str) -> str:
    """Returns the folder of a run's overlays and float maps."""
    return uris.join(results, FOLDER, f"run_id={run_id}")


def locate_file(results: str, run_id: str, row: Mapping[str, Any], *, ending: str) -> str:
    """Returns the file of one photo; the same photo always has the same, so that a second try replaces it."""
    named = "\n".join(str(part or "") for part in make_key(row))
    return uris.join(locate_overlays(results, run_id), f"{hashlib.sha256(named.encode()).hexdigest()[:24]}.{ending}")


def make_key(row: Mapping[str, Any]) -> Key:
    """Returns what tells a photo, its bytes and its box from others."""
    return row["image_uri"], row["image_etag"], row["box"]


def append_maps(results: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds MAPS rows in one commit; makes the table if need be.

    Raises:
        StorageError: the storage refused, or the table is damaged.
    """
    added = pa.Table.from_pylist([dict(row) for row in rows], schema=MAPS)
    description = "overlays and float maps of photos that runs have explained"
    append_rows(locate_maps(results), added, name=TABLE, description=description)


def read_maps(results: str, run_id: str) -> dict[Key, dict[str, Any]]:
    """Reads the MAPS rows of a run, by photo; none where no run has explained any.

    Raises:
        StorageError: the table is damaged, or storage refused.
    """
    found = read_table(locate_maps(results), schema=MAPS, filters=[("run_id", "=", run_id)])
    return {} if found is None else {make_key(row): row for row in found.to_pylist()}
