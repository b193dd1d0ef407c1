"""Configuration of the commands: one pydantic model each is the YAML file, the flags and the --help text.

A training's is in jobs.training.config, the registry's in jobs.detectors.config, a comparison's in
jobs.evaluation.comparison_config.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from jobs.errors import RequestError
from jobs.storage import uris
from model.config import MAX_PIXELS

SUBMITTED_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the environment of what `ray job submit` runs."""


def is_relative(value: str) -> bool:
    """Tells whether a place depends on the folder in which a command runs."""
    return "://" not in value and not value.startswith(("/", "~"))


def _as_uri(value: str) -> str:
    if SUBMITTED_JOB_VARIABLE in os.environ and is_relative(value):
        raise ValueError(
            f"a submitted job runs in a temporary folder of the cluster, where {value!r} would be lost: give a URI, "
            "such as s3://bucket/folder, or an absolute path on storage that all nodes share"
        )
    try:  # a shell expands ~ only at the beginning of a word: not after --data=, in quotes, or in YAML
        return uris.normalize(value)
    except RequestError as error:
        raise ValueError(str(error)) from error


def as_path(value: str) -> str:
    """Returns the absolute path of a local file that may be written with ``~``, ``..`` or ``file://``.

    Raises:
        ValueError: it is none.
    """
    return _as_local(_as_uri(value), value)


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
    return uri.removeprefix("file://") or "/"


def as_name(value: str) -> str:
    """Returns ``value`` if it can name a category, an alias or a run.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            f"expected 1-100 letters, digits, '.', '_' or '-', beginning with a letter or digit, got {value!r}"
        )
    return value


def split_at_commas(given: Any) -> Any:
    """Splits a text, or each text of a list, at its commas, as flags and YAML give several values.

    Anything else stays as it is.
    """
    if isinstance(given, str):
        return [part.strip() for part in given.split(",") if part.strip()]
    if isinstance(given, list):
        return [part for one in given for part in (split_at_commas(one) if isinstance(one, str) else [one])]
    return given


_MAKE_URI = AfterValidator(_as_uri)
Uri = Annotated[str, _MAKE_URI]
LocalPath = Annotated[str, AfterValidator(as_path)]
"""A file or folder of this machine, which may be written with ~, .. or file://; absolute once validated."""
Name = Annotated[str, AfterValidator(as_name)]

TRACKERS = ("mlflow", "wandb")


def check_tracker_names(names: list[str]) -> list[str]:
    """Returns the names of trackers. Raises ValueError for one that there is not."""
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ValueError(f"expected {' or '.join(TRACKERS)}, got {unknown[0]!r}")
    return names


Trackers = Annotated[list[str], BeforeValidator(split_at_commas), AfterValidator(check_tracker_names)]
Patterns = Annotated[list[str], BeforeValidator(split_at_commas)]
INCLUDE: list[str] = Field(
    default_factory=list,
    description="take only what these patterns name, such as *.jpg,*.png: the end of a key, where * is anything",
)
EXCLUDE: list[str] = Field(
    default_factory=list,
    description="leave out what these patterns name, such as rejects/*; hidden files, thumbnails (@eaDir, Thumbs.db) "
    "and folder markers are left out anyway",
)
_PLACE = re.compile(r"\.(csv|txt|parquet)(\.gz)?$|^(/|~|\.{1,2}/|\w+://)", re.IGNORECASE)


def as_exclusion(value: str) -> str:
    """Returns the URI of a list of photos, or patterns of their keys as they are given.

    Raises:
        ValueError: a list that is no URI.
    """
    return _as_uri(value) if is_place(value) else value


def is_place(value: str) -> bool:
    """Tells whether an exclusion names a list of photos, rather than patterns of their keys."""
    return _PLACE.search(value) is not None


Exclusion = Annotated[str, AfterValidator(as_exclusion)]
EXCLUSION: str | None = Field(
    None,
    description="list of photos to leave out, .csv, .txt or .parquet with their URIs or keys below the data, such as "
    "least_likely.csv of a training after a person has looked; or patterns of keys, such as rejects/*,*.png",
)
Confidence = Annotated[
    float | None,
    Field(
        gt=0,
        lt=1,
        description="probability, over the draw of the calibration photos, with which this very detector keeps to "
        "false_alarm_rate (training-conditional guarantee): a higher threshold, and more calibration photos needed; "
        "default: the rate is kept on average over calibration sets",
    ),
]

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


class JobConfig(BaseModel):
    """Base of all commands: unknown fields are refused, so a typo never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def list_uri_fields(config_class: type[BaseModel]) -> list[str]:
    """Lists the fields of a configuration that hold the URI of a place."""
    return [name for name, field in config_class.model_fields.items() if _MAKE_URI in field.metadata]


class ScoringResources(JobConfig):
    """How much of the cluster scoring takes."""

    actors: int | None = Field(
        None, ge=1, description="scoring actors; default: one per GPU, or per CPU left by decoding"
    )
    max_actors: int | None = Field(
        None,
        ge=1,
        description="scoring actors at most, for a cluster that scales: it begins with actors, asks for more while "
        "photos wait, and gives them back; default: a fixed number",
    )
    use_gpu: bool = Field(False, description="give each scoring actor one GPU")
    gpus_per_actor: float | None = Field(
        None,
        gt=0,
        le=1,
        description="for use_gpu: share of a GPU for each scoring actor, such as 0.25 for four on one; default: 1",
    )
    batch_photos: int | None = Field(
        None,
        ge=1,
        description="photos per scoring batch; default: as many as have 64 views, in runs of over 64,000 photos up to "
        "256, on GPUs 1024 and at most 512 photos",
    )
    fetch_concurrency: int = Field(32, ge=1, le=512, description="concurrent GETs per decode task")
    detector_cache_bytes: int = Field(
        2_000_000_000, ge=1, description="memory in bytes that each scoring actor may keep detectors loaded in"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="arithmetic of the networks: auto takes bf16 where the machine is fast at it (AMX, AVX512-BF16, "
        "GPU) and the detector was calibrated with it, else fp32; a precision by name must be that of the calibrations",
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels; larger headers are refused unread")
    decode_timeout_s: float = Field(
        60, gt=0, description="seconds that decoding one photo may take; then it has failed"
    )
    decode_memory_gib: float = Field(4, gt=0, description="GiB that decoding one photo may take; then it has failed")

    @model_validator(mode="after")
    def _check_actors(self) -> Self:
        if self.max_actors is not None and self.max_actors < (self.actors or 1):
            raise ValueError(f"max_actors {self.max_actors} is less than actors {self.actors}")
        if self.gpus_per_actor is not None and not self.use_gpu:
            raise ValueError("gpus_per_actor is there for use_gpu: give --scoring.use-gpu too")
        return self

    @property
    def gpu_share(self) -> float:
        """Returns the GPUs of one scoring actor: 0 on CPUs."""
        return (self.gpus_per_actor or 1.0) if self.use_gpu else 0.0


RENAMED_FIELDS = {"optimiser": "optimizer"}
"""Old name -> today's, of fields at the top level: files and flags of before the first release say them."""


def rename_old_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns ``fields`` under today's names, see RENAMED_FIELDS."""
    return {RENAMED_FIELDS.get(name, name): value for name, value in fields.items()}


def rename_old_flag(argument: str) -> str:
    """Returns one argument of a command line, ``--optimiser.epochs`` under its name of today."""
    name = re.match(r"--([\w-]+)", argument)
    if name is None or name[1] not in RENAMED_FIELDS:
        return argument
    return f"--{RENAMED_FIELDS[name[1]]}{argument[name.end() :]}"


def merge(base: dict[str, object], over: object) -> dict[str, object]:
    """Returns ``base`` with ``over`` laid on top, key by key at every level; attention is replaced as a whole."""
    if not isinstance(over, dict):
        raise ValueError(f"expected a mapping, got {over!r}")
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict) and key != "attention"
        merged[key] = merge(below, value) if nested and isinstance(below, dict) else value
    return merged


AskedPrecision = Literal["auto", "fp32", "bf16"]
