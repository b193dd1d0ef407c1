"""Why there is no photo or list where one was expected: an empty folder, a misspelt one, or another layout."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs import storage
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris
from jobs.tables.text import make_printable

_MAX_NAMES = 5


@dataclass(frozen=True)
class Level:
    """What lies right under a folder: the names of its folders, sorted, and how many files its beginning shows."""

    folders: Sequence[str]
    files: int

    def __bool__(self) -> bool:
        """Tells whether anything is there."""
        return bool(self.folders or self.files)

    def find_folder(self, name: str) -> str | None:
        """Returns the folder of this name, or else the one that is called so in other letters; None for none."""
        return next((one for one in sorted(self.folders, key=lambda one: one != name) if one.lower() == name), None)


@contextmanager
def refuse_missing_input() -> Iterator[None]:
    """Makes a missing file a fault of the request that names it; elsewhere a file that is gone is a failure of the run.

    Raises:
        RequestError: storage found no such object.
    """
    try:
        yield
    except MissingObjectError as error:
        raise RequestError(f"{error}: correct its name in the request") from error


def look_into(folder: str) -> Level:
    """Looks at the beginning of one level of a folder; an absent one is empty.

    Raises:
        StorageError: storage refused or could not be reached.
    """
    below = len(folder.rstrip("/")) + 1
    first = next(storage.list_between(folder), [])
    files = sum("/" not in info.uri[below:] for info in first)
    folders = {name[below:] for name in storage.list_level(folder, max_pages=1)[1]}
    return Level(sorted(folders - {""}), files)


def explain_absence(folder: str) -> str:
    """Says why a folder holds nothing: it is there and empty, or is not there; then what its parent has instead.

    Raises:
        StorageError: storage refused or could not be reached.
    """
    path = find_local_path(folder)
    if path is not None and path.exists():
        return "that folder is empty" if path.is_dir() else "that is a file, not a folder"
    parent, _, name = folder.rpartition("/")
    while uris.split(parent)[2] and not is_there(parent):
        parent, _, name = parent.rpartition("/")
    level = look_into(parent) if is_there(parent) else Level([], 0)
    near = level.find_folder(name.lower()) or next(iter(difflib.get_close_matches(name, level.folders, n=1)), None)
    said = f"{parent} has no folder {make_printable(name)}; it has {describe_level(level)}"
    return f"{said}; did you mean {make_printable(near)}?" if near else said


def find_local_path(uri: str) -> Path | None:
    """Returns the path of a local folder or file; None for other stores, which have no empty folders."""
    scheme, _, key = uris.split(uri)
    return Path(os.fsdecode(uris.restore_name("/" + key))) if scheme == "file" else None


def is_there(folder: str) -> bool:
    """Tells whether a folder exists; of other stores than local files: whether anything is in it."""
    path = find_local_path(folder)
    return bool(look_into(folder)) if path is None else path.is_dir()


def describe_level(level: Level) -> str:
    """Describes what lies right under a folder: the first names of folders, and whether there are files."""
    more = ", ..." if len(level.folders) > _MAX_NAMES else ""
    names = make_printable(", ".join(level.folders[:_MAX_NAMES])) + more
    files = f"{level.files} files" if level.files else ""
    return " and ".join(part for part in (f"the folders {names}" if level.folders else "", files) if part) or "nothing"


def suggest_folder(data: str, category: str | None) -> str:
    """Suggests the flags that fit photos which lie in another layout; empty where none are found.

    Args:
        data: folder that should have held ``<category>/train/good``.
        category: the one asked for; None for all.
    """
    name = category or "NAME"
    places = [data, uris.join(data, "train")]
    if category is not None:
        places = [uris.join(data, category, "train"), uris.join(data, category), *places]
    for place in places:
        level = look_into(place)
        if good := level.find_folder("good"):
            return f"; photos of one category can be given as --good {uris.join(place, good)} --category {name}"
        if level.files:
            return f"; the {level.files} files in {place} can be given as --good {place} --category {name}"
    return ""
