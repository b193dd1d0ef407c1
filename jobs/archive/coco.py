"""COCO's annotations of object detection as an archive: a row for each box of each image.

Boxes are x, y, width and height in pixels of the image as stored, as pycocotools and all that reads images without
turning them by EXIF count them. https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.archive.absence import refuse_missing_input
from jobs.archive.keys import parse_keys
from jobs.archive.uri_list import check_uris, normalize_listed
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.tables.boxes import format_value
from jobs.tables.schema import LISTED
from jobs.tables.text import make_printable

SUFFIX = ".json"
_ROWS = 10_000
_MAX_DIGITS = 18
"""Longest number that is read as a whole one; no id and no pixel has more digits."""
_ABSOLUTE = re.compile(r"[a-z0-9]+://|/|~")


def read_coco(file: str, *, folder: str, pattern: re.Pattern[str]) -> Iterator[pa.RecordBatch]:
    """Streams the annotations of a COCO file as LISTED rows; says on stderr what is left out.

    Args:
        file: its URI.
        folder: URI that ``file_name`` is relative to, where it is no URI or absolute path itself.
        pattern: matched at the beginning of each ``file_name`` for what the file does not say of the category.

    Raises:
        RequestError: it is not there, is no such file, or names what can be no object.
        StorageError: it cannot be reached.
    """
    content = load_coco(file)
    left_out = Counter[str]()
    names = name_images(content["images"], left_out)
    categories = name_categories(content.get("categories"))
    rows = list(make_rows(content["annotations"], names, categories, left_out))
    left_out["images without a box"] += len(names.keys() - {image for image, _, _ in rows})
    for some in (rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)):
        keys = [names[image] for image, _, _ in some]
        found = pa.array([locate_image(key, folder) for key in keys], pa.string())
        check_uris(found, place=file)
        said = parse_keys(keys, pattern)
        said["category"] = [one or by_key for (_, _, one), by_key in zip(some, said["category"], strict=True)]
        columns = {field.name: pa.nulls(len(some), field.type) for field in LISTED} | {
            name: pa.array(values, LISTED.field(name).type) for name, values in said.items()
        }
        boxes = pa.array([format_value(box) for _, box, _ in some], pa.string())
        yield pa.record_batch(columns | {"image_uri": found, "box": boxes}, schema=LISTED)
    if told := ", ".join(f"{count} {kind}" for kind, count in left_out.items() if count):
        print(f"left out of {make_printable(file)}: {told}", file=sys.stderr, flush=True)


def load_coco(file: str) -> dict[str, Any]:
    """Loads a COCO file; see `read_coco` for errors."""
    try:
        with refuse_missing_input():
            content = json.loads(storage.read(file), parse_int=parse_whole)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file} is no JSON: {str(error)[:200]}") from error
    is_coco = isinstance(content, dict) and all(
        isinstance(content.get(name), list) for name in ("images", "annotations")
    )
    if not is_coco:
        raise RequestError(f"{file} is no COCO file: expected an object with the lists images and annotations")
    return dict(content)


def parse_whole(digits: str) -> int | float:
    """Parses a whole number of JSON, which may be endless; one that no id or pixel has becomes a float."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def name_images(images: Sequence[Any], left_out: Counter[str]) -> dict[Any, str]:
    """Returns id -> file name of the images; counts those without, and those whose id does not tell which is meant."""
    named = [(one["id"], one["file_name"].removeprefix("./")) for one in images if is_named(one)]
    left_out["images without an id or a file_name"] += len(images) - len(named)
    found: dict[Any, set[str]] = {}
    for image, name in named:
        found.setdefault(image, set()).add(name)
    left_out["images of an id that another one has too"] += sum(len(some) for some in found.values() if len(some) > 1)
    return {image: some.pop() for image, some in found.items() if len(some) == 1}


def is_named(image: Any) -> bool:
    """Tells whether an entry of ``images`` has an id, which may be text, and the name of a file."""
    return (
        isinstance(image, dict)
        and isinstance(image.get("id"), int | str)
        and isinstance(image.get("file_name"), str)
        and bool(image["file_name"])
    )


def name_categories(categories: Any) -> dict[Any, str]:
    """Returns id -> name of the categories; what no category may be called with becomes ``_``, as a space does."""
    known = [one for one in categories or () if isinstance(one, dict) and isinstance(one.get("name"), str)]
    return {
        one["id"]: re.sub(r"[^A-Za-z0-9._-]", "_", one["name"])
        for one in known
        if isinstance(one.get("id"), int | str) and one["name"]
    }


def make_rows(
    annotations: Sequence[Any], names: Mapping[Any, str], categories: Mapping[Any, str], left_out: Counter[str]
) -> Iterator[tuple[Any, Any, str | None]]:
    """Yields image id, box and category of each annotation; counts those of no image, for which there is no row."""
    for one in annotations:
        image = one.get("image_id") if isinstance(one, dict) else None
        if not isinstance(image, int | str) or image not in names:
            left_out["annotations of no image"] += 1
            continue
        category = one.get("category_id")
        yield image, one.get("bbox"), categories.get(category) if isinstance(category, int | str) else None


def locate_image(name: str, folder: str) -> str | None:
    """Returns the URI of an image by its ``file_name``."""
    if _ABSOLUTE.match(name):
        return normalize_listed(name)
    located = uris.join(folder, name)
    return uris.normalize(located) if located.startswith("file://") else located
