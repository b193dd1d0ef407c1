"""Fields that say which photos a command takes, and which of them belong together."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from jobs.config.places import as_uri, check_kind
from jobs.config.values import split_at_commas

ARCHIVE_HELP = (
    "the photos: a prefix; or the manifest.json of an S3 Inventory (Parquet, CSV); or a .csv, .parquet or .txt list, "
    "or a folder of its parts, with a column image_uri and any of image_etag, image_bytes, last_modified, category, "
    "site, captured_at (uri, etag and size_bytes, their older names, are read too); with x, y, width, height, or a box "
    "of all four, a row is that part of the photo, in pixels as stored; or a COCO .json, whose file names are beside it"
)
BOXES: str | None = Field(
    None,
    description="COCO .json of boxes; its file names are below the folder of the photos, and only its boxes count",
)
DEFAULT_KEY_PATTERN = r"(?P<category>[^/]+)/"
_ROOTED = re.compile(r"^(/|~|\.{1,2}/|\w+://)")


def refuse_places(patterns: list[str]) -> list[str]:
    """Returns patterns of keys as they are.

    Raises:
        ValueError: one is a path or URI, which no key below an archive begins with.
    """
    if places := [one for one in patterns if _ROOTED.search(one)]:
        raise ValueError(
            f"expected patterns of keys, such as rejects/*, got {places[0]!r}: only jobs.train and tuning.search take "
            "a list of photos to leave out; name those wanted in a list as the archive"
        )
    return patterns


Patterns = Annotated[list[str], BeforeValidator(split_at_commas), AfterValidator(refuse_places)]
INCLUDE: list[str] = Field(
    default_factory=list,
    description="take only what these patterns name, such as *.jpg,*.png: the end of a key, where * is anything",
)
EXCLUDE: list[str] = Field(
    default_factory=list,
    description="leave out what these patterns name, such as rejects/*; hidden files, thumbnails (@eaDir, Thumbs.db) "
    "and folder markers are left out anyway",
)
_PLACE = re.compile(rf"\.(csv|txt|parquet)(\.gz)?$|{_ROOTED.pattern}", re.IGNORECASE)


def as_exclusion(value: str) -> str:
    """Returns the URI of a list of photos, or patterns of their keys as they are given.

    Raises:
        ValueError: a list that is no URI, or a folder.
    """
    if not is_place(value):
        return value
    uri = as_uri(value)
    check_kind(uri, "file")
    return uri


def is_place(value: str) -> bool:
    """Tells whether an exclusion names a list of photos, rather than patterns of their keys, which may have stars."""
    return "*" not in value and _PLACE.search(value) is not None


Exclusion = Annotated[str, AfterValidator(as_exclusion)]
EXCLUSION: str | None = Field(
    None,
    description="list of photos to leave out, .csv, .txt or .parquet with their URIs or keys below the data, such as "
    "least_likely.csv of a training after a person has looked; or patterns of keys, such as rejects/*,*.png",
)
GROUP_BY_HELP = (
    "what photos of one group have in common, so that they stay on one side of every split: named groups of "
    "key_pattern, such as site,date"
)
GROUP_BY_DEFAULT = (
    "photo for no groups but equal pixels; default: photos of equal pixels and near-duplicates, found by themselves"
)
GROUP_BY: list[str] = Field(default_factory=list, description=f"{GROUP_BY_HELP}; {GROUP_BY_DEFAULT}")
KEY_PATTERN: str | None = Field(
    None,
    description="for group_by: regular expression matched at the start of each key below <category>/train/good/, with "
    "named groups, such as (?P<site>[^/]+)/(?P<date>[^/]+)/",
)


def check_group_names(group_by: list[str], key_pattern: str | None) -> None:
    """Checks that the names of groups are named groups of the pattern, or the one name ``photo``.

    Raises:
        ValueError: they are not, or the pattern is none.
    """
    try:
        known = set(re.compile(key_pattern or "").groupindex)
    except re.error as error:
        raise ValueError(f"expected a regular expression as key_pattern, got {key_pattern!r}: {error}") from error
    unknown = [name for name in group_by if name not in known]
    if unknown and group_by != ["photo"]:
        raise ValueError(
            f"group_by {','.join(unknown)} is no named group of key_pattern, which has "
            f"{', '.join(sorted(known)) or 'none'}: give --key-pattern with such groups, or --group-by photo"
        )
    if key_pattern is not None and not group_by:
        raise ValueError("key_pattern is there for group_by: say which of its groups belong together")
