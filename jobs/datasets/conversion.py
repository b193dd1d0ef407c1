"""A data set written in MVTec's layout or as a list; neither the source nor a file that is there is ever changed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from jobs import storage
from jobs.datasets.config import ConvertDatasetConfig
from jobs.datasets.photo import LabelledPhoto
from jobs.errors import ConflictError, RequestError
from jobs.storage import uris

_COPIES_AT_ONCE = 16
_FILE = "file://"


def write_photos(photos: Sequence[LabelledPhoto], config: ConvertDatasetConfig) -> tuple[int, int]:
    """Writes photos as ``config.write`` says; returns how many were written, and how many lay there already.

    Raises:
        RequestError: the output lies in the source, has another file of a photo's name, or cannot hold links.
    """
    if config.write == "list":
        write_list(photos, config.output)
        return len(photos), 0
    source, output = (place.rstrip("/") + "/" for place in (config.source, config.output))
    if output.startswith(source):
        raise RequestError(f"--output must lie outside of {config.source}, which stays as it is: got {config.output}")
    put: Callable[[str, str], bool] = link_photo if config.write == "links" else copy_photo
    targets = name_targets(photos, config.output)
    if config.write == "links" and (remote := [uri for uri in (*targets, output) if not uri.startswith(_FILE)]):
        raise RequestError(f"--write links needs local files, got {remote[0]}: take --write copies or list")
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        written = sum(pool.map(put, targets.keys(), targets.values()))
    return written, len(targets) - written


def name_targets(photos: Sequence[LabelledPhoto], output: str) -> dict[str, str]:
    """Returns URI -> URI in MVTec's layout; photos of one name in one folder get the name of their whole key."""
    folders = [uris.join(output, photo.category, photo.split, photo.label) for photo in photos]
    names = [photo.key.rsplit("/", 1)[-1] for photo in photos]
    shared = Counter((folder, name.lower()) for folder, name in zip(folders, names, strict=True))
    return {
        photo.uri: uris.join(
            folder,
            name if shared[folder, name.lower()] == 1 else photo.key.split("://")[-1].strip("/").replace("/", "__"),
        )
        for photo, folder, name in zip(photos, folders, names, strict=True)
    }


def link_photo(source: str, target: str) -> bool:
    """Links a local photo; returns whether it had to.

    Raises:
        RequestError: something else lies there, or the photo does not exist.
    """
    photo, link = (Path(place.removeprefix(_FILE)) for place in (source, target))
    if not photo.exists():
        raise RequestError(f"{source} is in the data set's list and does not exist")
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(photo)
    except FileExistsError:
        if link.resolve() != photo.resolve():
            raise make_other_error(source, target) from None
        return False
    return True


def copy_photo(source: str, target: str) -> bool:
    """Copies a photo; returns whether it had to.

    Raises:
        RequestError: other bytes lie there.
    """
    data = storage.read(source)
    try:
        storage.write(target, data, if_absent=True)
    except ConflictError:
        if storage.read(target) != data:
            raise make_other_error(source, target) from None
        return False
    return True


def make_other_error(source: str, target: str) -> RequestError:
    """Makes the error of a place where something else than the photo lies."""
    return RequestError(f"{target} is there and is not {source}: take an empty --output")


def write_list(photos: Sequence[LabelledPhoto], output: str) -> None:
    """Writes a list with the columns image_uri, category, split and label.

    Raises:
        RequestError: its name does not say which kind it is, or a file is there.
    """
    names = ("uri", "category", "split", "label")
    columns = {name: pa.array([getattr(photo, name) for photo in photos], pa.string()) for name in names}
    table = pa.table(columns).rename_columns(["image_uri", *names[1:]])
    buffer = io.BytesIO()
    if output.endswith(".parquet"):
        pq.write_table(table, buffer)
    elif output.endswith(".csv"):
        csv.write_csv(table, buffer)
    else:
        raise RequestError(f"--output of a list must end with .csv or .parquet, got {output}")
    try:
        storage.write(output, buffer.getvalue(), if_absent=True)
    except ConflictError:
        raise RequestError(f"{output} is there: take another --output") from None
