"""How the photos of data sets lie as they are handed out: a function for each layout, all with the same outcome."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import csv

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.archive.mvtec import FLAWLESS, SPLITS, list_labelled
from jobs.archive.uri_list import read_columns
from jobs.datasets.config import CheckDatasetConfig, LayoutName
from jobs.datasets.photo import LabelledPhoto, split_flawless
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris

INSPLAD_FOLDER = "unsupervised_anomaly_detection"
VISA_SPLIT = "split_csv/1cls.csv"
_PHOTO = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)
_FOLDERS = re.compile(r"(?P<category>[^/]+)/(?P<label>[^/]+)/(?:[^/]+/)*[^/]+")
_MTD = re.compile(r"(?:.*/)?MT_(?P<label>[A-Za-z]+)/Imgs/(?P<name>[^/]+\.jpe?g)", re.IGNORECASE)
_LIST_COLUMNS = ("image_uri", "label", "category", "split")
_OLDER_URI = "uri"


def read_dataset(config: CheckDatasetConfig) -> list[LabelledPhoto]:
    """Lists the photos of a data set with their labels, ordered by category and key.

    Raises:
        RequestError: it does not lie as its layout says.
    """
    photos = list(_READERS[config.layout](config))
    if not photos:
        raise RequestError(f"no photo in {config.source} lies as the layout {config.layout} says: see --help")
    return split_flawless(photos, test_share=config.test_share, seed=config.seed)


def read_mvtec(config: CheckDatasetConfig) -> Iterator[LabelledPhoto]:
    """Reads ``<category>/train/good/*`` and ``<category>/test/<label>/*``; masks lie elsewhere."""
    yield from _read_mvtec_folder(config.source)


def read_insplad(config: CheckDatasetConfig) -> Iterator[LabelledPhoto]:
    """Reads InsPLAD-fault: MVTec's layout, in a folder of its own or in the one above it."""
    below = uris.join(config.source, INSPLAD_FOLDER)
    has_photos = any(storage.list_between(below))  # pages, of which some are empty
    yield from _read_mvtec_folder(below if has_photos else config.source)


def _read_mvtec_folder(folder: str) -> Iterator[LabelledPhoto]:
    for row in list_labelled(folder).select(["image_uri", "category", "split", "label"]).to_pylist():
        if _PHOTO.search(row["image_uri"]):
            key = row["image_uri"].removeprefix(folder.rstrip("/") + "/")
            yield LabelledPhoto(row["image_uri"], key, row["category"], row["split"], row["label"])


def read_visa(config: CheckDatasetConfig) -> Iterator[LabelledPhoto]:
    """Reads VisA by its one-class split, a CSV with the columns object, split, label and image.

    Raises:
        RequestError: the CSV is not there, or has other columns.
    """
    table = _read_csv(uris.join(config.source, VISA_SPLIT))
    needed = ["object", "split", "label", "image"]
    if lacking := [name for name in needed if name not in table.column_names]:
        raise RequestError(f"{config.source}/{VISA_SPLIT} has no column {lacking[0]}, expected {', '.join(needed)}")
    for row in table.select(needed).to_pylist():
        label = FLAWLESS if row["label"].lower() == "normal" else row["label"].lower()
        place = uris.join(config.source, row["image"])
        yield LabelledPhoto(place, row["image"], row["object"], check_split(row["split"], place), label)


def read_mtd(config: CheckDatasetConfig) -> Iterator[LabelledPhoto]:
    """Reads the magnetic tiles: ``MT_Free/Imgs/*.jpg``, ``MT_Crack/Imgs/*.jpg`` and so on; the .png there are masks.

    Raises:
        RequestError: no list of the training photos is given.
    """
    if config.train_list is None:
        raise RequestError(
            "mtd needs --train-list, the names of the training photos: mtd_train_filenames.txt of "
            "github.com/marco-rudolph/differnet is DifferNet's split"
        )
    lines = storage.read(config.train_list).decode().splitlines()
    training = {line.strip().rsplit("/", 1)[-1] for line in lines if line.strip()}
    for key, place in list_keys(config.source):
        if found := _MTD.fullmatch(key):
            label = FLAWLESS if found["label"].lower() == "free" else found["label"].lower()
            split = "train" if label == FLAWLESS and found["name"] in training else "test"
            yield LabelledPhoto(place, key, "tile", split, label)


def read_folders(config: CheckDatasetConfig) -> Iterator[LabelledPhoto]:
    """Reads ``<category>/<label>/<photo>``, as the semiconductor wafers (street, chip) lie; they have no split."""
    for key, place in list_keys(config.source):
        if found := _FOLDERS.fullmatch(key):
            label = read_label(found["label"], config)
            yield LabelledPhoto(place, key, found["category"], "", label)


def read_list(config: CheckDatasetConfig) -> Iterator[LabelledPhoto]:
    """Reads a list with the columns image_uri and label, perhaps category and split; a path is below the list's folder.

    Raises:
        RequestError: the list or a column is missing, or a row has no value in it.
    """
    for batch in read_columns(config.source, _select_list_columns):
        yield from (read_row(row, config) for row in batch.to_pylist())


def read_row(row: Mapping[str, Any], config: CheckDatasetConfig) -> LabelledPhoto:
    """Reads a row of a list; see `read_list`."""
    place = row.get("image_uri") or row.get(_OLDER_URI) or ""
    category = row.get("category") or config.category
    if not place or not row["label"] or not category:
        raise RequestError(f"{config.source}: each row needs image_uri, label and category (or --category), got {row}")
    is_whole = "://" in place or place.startswith("/")
    whole = place if is_whole else uris.join(config.source.rpartition("/")[0], place)
    split = check_split(row["split"], place) if row.get("split") else ""
    return LabelledPhoto(uris.normalize(whole), place, str(category), split, read_label(str(row["label"]), config))


def _select_list_columns(names: list[str], file: str) -> list[str]:
    if not {"image_uri", _OLDER_URI} & set(names) or "label" not in names:
        raise RequestError(
            f"the list {file} needs the columns image_uri and label: got {', '.join(names) or 'nothing'}"
        )
    return [name for name in (*_LIST_COLUMNS, _OLDER_URI) if name in names]


def read_label(label: str, config: CheckDatasetConfig) -> str:
    """Returns ``good`` for the labels that ``config.flawless`` names, all others as they are."""
    return FLAWLESS if label.lower() in {name.lower() for name in config.flawless} else label


def check_split(split: str, place: str) -> str:
    """Returns the name of a split.

    Raises:
        RequestError: it is none.
    """
    if split.lower() not in SPLITS:
        raise RequestError(f"{place}: split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split.lower()


def list_keys(source: str) -> Iterator[tuple[str, str]]:
    """Yields the key below ``source`` and the URI of every photo there, by the end of its name."""
    base = source.rstrip("/") + "/"
    for place in list_archive(source, key_pattern="(?P<category>)")["image_uri"].to_pylist():
        if _PHOTO.search(place):
            yield place.removeprefix(base), place


def _read_csv(place: str) -> pa.Table:
    try:
        return csv.read_csv(
            io.BytesIO(storage.read(place)), convert_options=csv.ConvertOptions(strings_can_be_null=False)
        )
    except MissingObjectError as error:
        raise RequestError(f"needed {place}, which comes with VisA: {error}") from None
    except pa.ArrowInvalid as error:
        raise RequestError(f"{place} is no CSV: {str(error).splitlines()[0]}") from None


_READERS: Mapping[LayoutName, Callable[[CheckDatasetConfig], Iterator[LabelledPhoto]]] = {
    "mvtec_ad": read_mvtec,
    "visa": read_visa,
    "insplad_fault": read_insplad,
    "mtd": read_mtd,
    "wafer": read_folders,
    "mvtec_layout": read_mvtec,
    "folders": read_folders,
    "list": read_list,
}
