"""Configuration of the scoring command."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from jobs.config import (
    ARCHIVE_HELP,
    BOXES,
    DEFAULT_KEY_PATTERN,
    EXCLUDE,
    INCLUDE,
    Confidence,
    JobConfig,
    Name,
    Patterns,
    ScoringResources,
    Uri,
    refuse_ignored,
)
from jobs.explanation.choice import MAX_PER_CATEGORY, parse_choice

RAY_ONLY = tuple(f"scoring.{name}" for name in ("actors", "max_actors", "gpus_per_actor", "batch_photos"))
"""Fields that say how a cluster is shared out."""


class ScoreConfig(JobConfig):
    """Score an archive of inspection photos into a Parquet result table."""

    archive: Uri = Field(description=ARCHIVE_HELP)
    boxes: Uri | None = BOXES
    detectors: Uri = Field(description="registry of trained detectors")
    results: Uri = Field(description="where scores/ and runs/ are kept")
    run_id: Name = Field(description="name of this run; the same id again resumes it, or does nothing once published")
    alias: Name = Field("champion", description="which registered detector of each category scores")
    category: Name | None = Field(
        None, description="category of every photo, whatever its key says: for the folder of one category"
    )
    key_pattern: str = Field(
        DEFAULT_KEY_PATTERN,
        description="regular expression matched at the start of each key below the archive (of a list or an inventory: "
        "below the bucket); named groups: category (required), site, captured_at (ISO 8601)",
    )
    include: Patterns = INCLUDE
    exclude: Patterns = EXCLUDE
    false_alarm_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of flawless photos that may be reported: a photo is an anomaly at or below this p-value; "
        "default: of each category the smallest that its calibration supports, at most 0.05",
    )
    confidence: Confidence = None
    max_error_rate: float = Field(
        0.05, ge=0, le=1, description="share of unreadable and failed rows above which to exit 3"
    )
    max_missing_rate: float = Field(
        0.05, ge=0, le=1, description="share of missing rows (listed, then gone) above which to exit 3"
    )
    max_no_detector_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of no_detector rows above which to exit 3; 1 never does, for a fleet that is not whole yet",
    )
    min_alarm_rows: int = Field(
        5, ge=1, description="rows of a kind, at least, for exit 3: fewer are no incident, whatever their share"
    )
    local: bool | None = Field(
        None,
        description="score in this process, without Ray, which takes long to start; default: where that is faster and "
        "RAY_ADDRESS is not set",
    )
    slice_photos: int | None = Field(
        None,
        ge=1,
        description="photos that come into the table at once, the most that a killed run loses; default: 32,768, or "
        "4,096 with --local",
    )
    rescore: bool = Field(False, description="score everything again, also what earlier runs have scored")
    max_attempts: int = Field(
        6, ge=1, description="tries of a photo that fails for reasons outside its bytes; then it is left alone"
    )
    retry_hours: float = Field(
        20, ge=0, le=876_000, description="hours from the second try to the third; each later pause is twice as long"
    )
    mark_deleted: bool = Field(
        False, description="add a row for each photo below the archive that the table has and the listing has not"
    )
    top: int = Field(10, ge=0, description="how many of the most anomalous photos the summary lists")
    report: bool = Field(
        False, description="write the page of jobs.report when the run is done: <results>/reports/<run_id>.html"
    )
    explain: str = Field(
        "none",
        description="after the scores are in the table, fetch the photos that stand out again and write an overlay and "
        "float maps of each, which say where its score comes from: top:K for the K most anomalous of each category, "
        f"anomalies for those reported (at most {MAX_PER_CATEGORY} of a category), or none",
    )
    fail_on_drift: bool = Field(
        False,
        description="exit 3 where a category looks like new photos, so that its alarms cannot be trusted: another "
        "camera, light or season; new defects are no reason",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="json also writes a JSON line per event to stderr, each with the run id"
    )
    scoring: ScoringResources = Field(default_factory=ScoringResources, description="share of the cluster")

    @field_validator("explain")
    @classmethod
    def _explains_what_there_is(cls, text: str) -> str:
        parse_choice(text)
        return text

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

    @model_validator(mode="after")
    def _refuse_what_no_mode_reads(self) -> Self:
        if self.local:
            refuse_ignored(self, RAY_ONLY, because="with --local, which scores in one process without Ray")
        return self
