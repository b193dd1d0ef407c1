"""The pictures of a page: overlays of what the run has explained, thumbnails of the other photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs import storage
from jobs.errors import CredentialsError, StorageError
from jobs.explanation.table import locate_file, make_key, read_maps
from jobs.findings.config import ReportConfig
from jobs.findings.thumbnails import embed_jpeg, make_thumbnails


def make_pictures(rows: Sequence[Mapping[str, Any]], config: ReportConfig) -> list[tuple[str, str]]:
    """Returns for each photo a data URI and "", or "" and why there is none.

    Only photos that the run has not explained are fetched from the archive.

    Args:
        rows: of the photos; see `make_thumbnails`.
        config: says which run, and how large a thumbnail is.

    Raises:
        StorageError: the table of maps is damaged, or storage refused.
    """
    overlays = read_overlays(rows, config)
    others = [row for row, overlay in zip(rows, overlays, strict=True) if not overlay]
    thumbnails = iter(make_thumbnails(others, side_px=config.thumbnail_px, max_pixels=config.max_pixels))
    return [(overlay, "") if overlay else next(thumbnails) for overlay in overlays]


def read_overlays(rows: Sequence[Mapping[str, Any]], config: ReportConfig) -> list[str]:
    """Reads the overlay of each photo as a data URI; empty where there is none, or where it is gone."""
    explained = read_maps(config.results, config.run_id) if rows else {}
    return [
        # By its name and not by the URI of the table, so that results which were moved keep their pictures.
        read_jpeg(locate_file(config.results, config.run_id, row, ending="jpg")) if make_key(row) in explained else ""
        for row in rows
    ]


def read_jpeg(uri: str) -> str:
    """Reads a JPEG as a data URI; empty where it cannot be read: a thumbnail takes its place."""
    try:
        return embed_jpeg(storage.read(uri))
    except CredentialsError:
        raise  # the thumbnail could not be fetched either
    except StorageError:
        return ""
