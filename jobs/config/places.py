"""Places: URIs of stored data and paths of this machine, as flags and YAML give them."""

from __future__ import annotations

import os
import stat
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel

from jobs.errors import RequestError
from jobs.storage import uris
from jobs.storage.local_files import locate

PlaceKind = Literal["folder", "file", "other"]
_NAMES: dict[PlaceKind | None, str] = {"folder": "a folder", "file": "a file", "other": "a device, pipe or socket"}

SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the environment of what `ray job submit` runs."""


def is_relative(value: str) -> bool:
    """Tells whether a place depends on the folder in which a command runs."""
    return "://" not in value and not value.startswith(("/", "~"))


def as_uri(value: str) -> str:
    """Returns the URI of a place that may be written with ``~``, ``..`` or relative to the folder of the command.

    Raises:
        ValueError: it is none, a relative one in a submitted job, or a local one where nothing can lie.
    """
    if not value.strip():
        raise ValueError(f"expected a path or a URI, got {value!r}: perhaps a variable of the shell is empty")
    if SUBMITTED_JOB_VARIABLE in os.environ and is_relative(value):
        raise ValueError(
            f"a submitted job runs in a temporary folder of the cluster, where {value!r} would be lost: give a URI, "
            "such as s3://bucket/folder, or an absolute path on storage that all nodes share"
        )
    try:  # a shell expands ~ only at the beginning of a word: not after --data=, in quotes, or in YAML
        uri = uris.normalize(value)
    except RequestError as error:
        raise ValueError(str(error)) from error
    find_kind(uri)
    return uri


def find_kind(uri: str) -> PlaceKind | None:
    """Finds what lies at a local place; None where nothing is, where this user may not look, and of other stores.

    Raises:
        ValueError: nothing can lie there, such as below a file.
    """
    scheme, _, key = uris.split(uri)
    if scheme != "file":
        return None
    path = locate(key)
    if path == path.parent:
        raise ValueError(f"expected a folder or file below the root of this machine, got {uri!r}")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(f"{uri} is a link to nothing") from None
        return None
    except PermissionError:
        return None
    except OSError as error:
        raise ValueError(f"no folder or file can be {uri}: {error.strerror}") from error
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def check_kind(value: object, expected: PlaceKind) -> None:
    """Checks that what lies at a place is of the expected kind, or that nothing is there yet.

    Args:
        value: a place or several, as validated; what is no text is none.
        expected: folder or file.

    Raises:
        ValueError: something else is there.
    """
    for uri in [uris.normalize(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]:
        kind = find_kind(uri)
        if kind not in (None, expected):
            raise ValueError(f"expected a {expected}, but {uri} is {_NAMES[kind]}")


def as_path(value: str) -> str:
    """Returns the absolute path of a local file that may be written with ``~``, ``..`` or ``file://``.

    Raises:
        ValueError: it is none.
    """
    return _as_local(as_uri(value), value)


def as_config_path(value: str) -> str:
    """Returns the absolute path of a configuration file: a submitted job's comes with it, so a relative one is right.

    Raises:
        ValueError: it is no local file.
    """
    try:
        return _as_local(uris.normalize(value), value)
    except RequestError as error:
        raise ValueError(str(error)) from error


def _as_local(uri: str, value: str) -> str:
    if not uri.startswith("file://"):
        raise ValueError(f"expected a local file or folder, got {value!r}")
    return uri.removeprefix("file://")


_MAKE_URI = AfterValidator(as_uri)
Uri = Annotated[str, _MAKE_URI]
LocalPath = Annotated[str, AfterValidator(as_path)]
"""A file or folder of this machine, which may be written with ~, .. or file://; absolute once validated."""


def list_uri_fields(config_class: type[BaseModel]) -> list[str]:
    """Lists the fields of a configuration that hold the URI of a place, or None, or several of them."""
    fields = config_class.model_fields.items()
    return [name for name, field in fields if _MAKE_URI in field.metadata or _holds_uri(field.annotation)]


def _holds_uri(annotation: object) -> bool:
    """Tells whether a type has Uri in it, as ``Uri | None`` and ``list[Uri]`` have."""
    return _MAKE_URI in getattr(annotation, "__metadata__", ()) or any(map(_holds_uri, get_args(annotation)))
