"""Configuration of the registry's commands and of recalibration."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from jobs.config import (
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
from jobs.detectors.aliases import DETECTOR_ID, NO_DETECTOR


class _RegistryConfig(JobConfig):
    detectors: Uri = Field(description="registry of trained detectors")


class ListConfig(_RegistryConfig):
    """List the detectors of every category: variant, seed, photos, training figures, aliases."""

    categories: list[Name] = Field(default_factory=list, description="categories to list; default: all")
    format: Literal["text", "json"] = Field("text", description="a table for people, or JSON")
    output: Uri | None = Field(
        None, description="Parquet file to write the list to instead, which joins the result table by detector_id"
    )

    @model_validator(mode="after")
    def _refuse_what_no_mode_reads(self) -> Self:
        if self.output is not None:
            refuse_ignored(self, ["format"], because="with --output, which writes a Parquet file")
        return self


class ShowConfig(_RegistryConfig):
    """Show one detector: its card, that is configuration, promises of the calibration, lineage and figures."""

    category: Name = Field(description="asset category")
    name: Name = Field("champion", description="alias or id of the detector")
    format: Literal["text", "card", "json"] = Field(
        "text", description="what people ask; the whole card with all figures; or all that is known as JSON"
    )


class CompareConfig(_RegistryConfig):
    """Compare detectors of one category: the configuration fields and figures in which they differ, side by side."""

    category: Name = Field(description="asset category")
    names: list[Name] = Field(min_length=2, description="aliases or ids of the detectors, two at least")
    format: Literal["text", "json"] = Field("text", description="a table for people, or JSON")


class PromoteConfig(_RegistryConfig):
    """Point an alias at a detector that is whole and calibrated."""

    category: Name = Field(description="asset category")
    name: Name = Field(description="id of the detector, or an alias of it")
    alias: Name = Field("champion", description="alias to change")
    if_current: str | None = Field(
        None,
        pattern=f"^({DETECTOR_ID.pattern}|{NO_DETECTOR})$",
        description=f"change it only if it is this detector now (an id, or {NO_DETECTOR}); default: whatever it is",
    )
    reason: str = Field("", max_length=500, description="why, for the history")


class RollbackConfig(_RegistryConfig):
    """Point an alias at the detector that it was promoted from; twice goes back two promotions."""

    category: Name = Field(description="asset category")
    alias: Name = Field("champion", description="alias to change")
    reason: str = Field("", max_length=500, description="why, for the history")


class SignConfig(_RegistryConfig):
    """Sign the aliases of a category, and the detectors that they name, as they are now: look at them first."""

    category: Name = Field(description="asset category")


class HistoryConfig(_RegistryConfig):
    """Show who changed which alias, when, from what and to what, oldest first."""

    category: Name = Field(description="asset category")
    alias: Name | None = Field(None, description="only this alias")
    format: Literal["text", "json"] = Field("text", description="a table for people, or JSON")


class RecalibrateConfig(_RegistryConfig):
    """Calibrate a registered detector again on flawless photos that it was not trained on, without retraining."""

    data: Uri | None = Field(None, description="where the photos are, such as the data in MVTec layout")
    good: Uri | None = Field(
        None, description="instead of data: the flawless photos, a folder in any layout, an S3 Inventory or a list"
    )
    verdicts: Uri | None = Field(
        None,
        description="instead of data: results of jobs.score, for photos of random samples (jobs.sample) that people "
        "found good there; they join the calibration that the detector has",
    )
    replace: bool = Field(
        False, description="with verdicts: calibrate on these photos alone, for archives that have changed"
    )
    category: Name = Field(description="asset category")
    folder: str | None = Field(
        None, description="folder of flawless photos below the data; default: <category>/train/good"
    )
    include: Patterns = INCLUDE
    exclude: Patterns = EXCLUDE
    alias: Name = Field("champion", description="which registered detector to recalibrate")
    promote: bool = Field(False, description="move the alias to the recalibrated detector")
    alias_to: Name | None = Field(None, description="another alias to set to the recalibrated detector")
    assume_unseen: bool = Field(
        False, description="trust that no photo trained the detector, where its training photos are not recorded"
    )
    false_alarm_rate: float = Field(0.05, gt=0, lt=1, description="rate that the new calibration must be able to hold")
    confidence: Confidence = None
    precision: Literal["fp32", "bf16"] | None = Field(
        None,
        description="arithmetic that the recalibrated detector scores with from now on; default: as before. bf16 is "
        "faster on CPUs with AMX or AVX512-BF16 and on GPUs",
    )
    scoring: ScoringResources = Field(default_factory=ScoringResources, description="share of the cluster")

    @model_validator(mode="after")
    def _check_where_the_photos_are(self) -> Self:
        if sum(place is not None for place in (self.data, self.good, self.verdicts)) != 1:
            raise ValueError(
                "needed --data FOLDER in MVTec layout, --good FOLDER, or --verdicts RESULTS: give one of them"
            )
        if self.verdicts is not None and self.precision is not None and not self.replace:
            raise ValueError("--precision changes all scores: with --verdicts it needs --replace")
        if self.replace and self.verdicts is None:
            raise ValueError("--replace goes with --verdicts; photos of a folder always replace the calibration")
        if self.data is None and self.folder is not None:
            raise ValueError("--folder is below --data: with --good give the whole folder there, with --verdicts none")
        if self.verdicts is not None:
            refuse_ignored(self, ["include", "exclude"], because="with --verdicts, which name each photo")
        return self

    @field_validator("folder")
    @classmethod
    def _stays_below_the_data(cls, folder: str | None) -> str | None:
        if folder is not None and any(part in ("", ".", "..") for part in folder.split("/")):
            raise ValueError(f"expected a relative folder such as insulator/2026-11, got {folder!r}")
        return folder
