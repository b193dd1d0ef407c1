"""Configuration of the verbs: one pydantic model each is the YAML file, the flags and the --help text.

A training's is in jobs.train_config, the registry's in jobs.registry_config, a comparison's in jobs.comparison_config.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
)

from jobs import uris
from jobs.errors import RequestError
from model.config import MAX_PIXELS


def _as_uri(value: str) -> str:
    try:
        return uris.normalise(value)
    except RequestError as error:
        raise ValueError(str(error)) from error


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


Uri = Annotated[str, AfterValidator(_as_uri)]
Name = Annotated[str, AfterValidator(as_name)]

ARCHIVE_HELP = (
    "the photos: a prefix; or the manifest.json of an S3 Inventory (Parquet, CSV); or a .csv, .csv.gz or .parquet list "
    "with a column uri and any of etag, size_bytes, last_modified, category, site, captured_at"
)
DEFAULT_KEY_PATTERN = r"(?P<category>[^/]+)/"


class JobConfig(BaseModel):
    """Base of all verbs: unknown fields are refused, so a typo never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoringResources(JobConfig):
    """How much of the cluster scoring takes."""

    actors: int | None = Field(
        None, ge=1, description="scoring actors; default: one per GPU, or per CPU left by decoding"
    )
    use_gpu: bool = Field(False, description="give each scoring actor one GPU")
    batch_photos: int | None = Field(
        None,
        ge=1,
        description="photos per scoring batch; default: as many as have 64 views, in runs of over 64,000 photos and on "
        "GPUs up to 256",
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


class ScoreConfig(JobConfig):
    """Score an archive of inspection photos into a Parquet result table."""

    archive: Uri = Field(description=ARCHIVE_HELP)
    detectors: Uri = Field(description="registry of trained detectors")
    results: Uri = Field(description="where scores/ and runs/ are kept")
    run_id: Name = Field(description="name of this run; the same id again resumes it, or does nothing once published")
    alias: Name = Field("champion", description="which registered detector of each category scores")
    key_pattern: str = Field(
        DEFAULT_KEY_PATTERN,
        description="regular expression matched at the start of each key below the archive (of a list or an inventory: "
        "below the bucket); named groups: category (required), site, captured_at (ISO 8601)",
    )
    false_alarm_rate: float = Field(0.05, gt=0, lt=1, description="p-value at or below which a photo is an anomaly")
    max_error_rate: float = Field(
        0.05, ge=0, le=1, description="share of unreadable and failed rows above which to exit 3"
    )
    rescore: bool = Field(False, description="score everything again, also what earlier runs have scored")
    top: int = Field(10, ge=0, description="how many of the most anomalous photos the summary lists")
    log_format: Literal["text", "json"] = Field(
        "text", description="json also writes a JSON line per event to stderr, each with the run id"
    )
    scoring: ScoringResources = Field(default_factory=ScoringResources, description="share of the cluster")

    @field_validator("key_pattern")
    @classmethod
    def _pattern_names_a_category(cls, pattern: str) -> str:
        try:
            groups = set(re.compile(pattern).groupindex)
        except re.error as error:
            raise ValueError(f"expected a regular expression, got {pattern!r}: {error}") from error
        if "category" not in groups or groups - {"category", "site", "captured_at"}:
            raise ValueError(f"expected named groups category and at most site, captured_at, got {sorted(groups)}")
        return pattern


class EvaluateConfig(JobConfig):
    """Score labelled photos with registered detectors: AUROC, AUPR and recall at 1 and 5 % false alarms.

    With --variants, every variant gets its mean and interval over seeds, and is compared with the first one by a paired
    bootstrap over photos and seeds. What is not registered is named and left out.
    """

    data: Uri = Field(description="data in MVTec layout: <category>/test/good and <category>/test/<defect>")
    detectors: Uri = Field(description="registry of trained detectors")
    categories: list[Name] = Field(default_factory=list, description="categories to evaluate; default: all in the data")
    alias: Name = Field("champion", description="which detector of each category to evaluate, without --variants")
    variants: list[Name] = Field(
        default_factory=list,
        description="variants to evaluate, with commas between them, the one to compare with first: those behind the "
        "aliases <variant>.seed<k>",
    )
    seeds: int = Field(1, ge=1, le=1000, description="with --variants, k runs from 0 to seeds - 1")
    output: Uri | None = Field(
        None,
        description="folder to write figures.json, figures.parquet, results.parquet (a row per photo and detector) and "
        "histograms/*.png to",
    )
    scoring: ScoringResources = Field(default_factory=ScoringResources, description="share of the cluster")


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
