"""Configuration of the comparison of variants with each other and with baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from jobs.config import (
    EXCLUDE,
    GROUP_BY,
    INCLUDE,
    KEY_PATTERN,
    JobConfig,
    Patterns,
    PlaceKind,
    Texts,
    Uri,
    check_group_names,
    merge,
    refuse_ignored,
)
from model.config import MAX_PIXELS, DetectorConfig, OptimizerConfig
from model.presets import PRESETS, settle_attention

_DECIDED = ("variant", "seed", "attention")
"""Detector fields that the comparison sets itself."""


class ComparisonConfig(JobConfig):
    """Train every variant with every seed on every data set, test them, and set them against closed-form baselines.

    Settings are the same for all variants: --detector.* and --optimizer.* are laid on the defaults, and on top comes
    only what a preset itself sets (attention, for instance). The last epoch is scored and nothing is selected on test
    photos. Finished units are kept in --output, so the same command again continues a run that was killed.
    """

    output_kind: ClassVar[PlaceKind | None] = "folder"

    data: list[Uri] = Field(
        min_length=1,
        description="data sets in MVTec layout (<category>/train/good, <category>/test/<label>), separated by commas",
    )
    output: Uri = Field(
        description="folder for comparison.md and .json, scores.parquet, methods.parquet (a row a method, category and "
        "seed, with its cost), histograms/*.png and units/"
    )
    variants: list[str] = Field(
        default_factory=lambda: list(PRESETS),
        min_length=1,
        description="presets, or names from custom, with commas between them; the first is the one to compare with",
    )
    custom: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="further variants by name: the detector fields in which each differs"
    )
    seeds: int = Field(3, ge=1, le=1000, description="seeds per variant, from 0")
    baselines: bool = Field(True, description="compare with the closed-form baselines (model.baselines) as well")
    pretext_on: Literal["own", "all"] = Field(
        "own", description="flawless photos of the attention pretext: of the own category, or of all categories given"
    )
    calibration_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the flawless training photos that train nothing and calibrate: then the report sets the "
        "false alarms on flawless test photos against the rate promised; 0: all photos train",
    )
    group_by: Texts = GROUP_BY
    key_pattern: str | None = KEY_PATTERN
    include: Patterns = INCLUDE
    exclude: Patterns = EXCLUDE
    false_alarm_rate: float = Field(0.05, gt=0, lt=1, description="with calibration_fraction, the rate promised")
    leave_one_set_out: bool = Field(
        False,
        description="choose a variant on all data sets but one and judge it on that one, for every set: the figure "
        "that counts. Features without attention are computed once, kept in <output>/features and scored from there",
    )
    confirm: list[str] = Field(
        default_factory=list,
        description="data sets, by the last part of their path, that are in no mean and choose nothing; differences on "
        "them are reported by themselves; separated by commas",
    )
    tasks: int | None = Field(None, ge=1, description="units at a time, one CPU each; default: one per core")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels; larger headers are refused unread")
    optimizer: OptimizerConfig = Field(
        default_factory=OptimizerConfig, description="training procedure of all variants"
    )
    detector: DetectorConfig = Field(default_factory=DetectorConfig, description="settings of all variants")

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, given: object) -> object:
        if isinstance(given, dict) and "anchors" in given:
            raise ValueError("anchors is called baselines now")
        return given

    @field_validator("detector")
    @classmethod
    def _refuse_decided_fields(cls, detector: DetectorConfig) -> DetectorConfig:
        if given := [name for name in _DECIDED if name in detector.model_fields_set]:
            raise ValueError(f"{', '.join(given)} cannot be set: --variants and --seeds decide it")
        return detector

    @model_validator(mode="after")
    def _check_groups(self) -> ComparisonConfig:
        check_group_names(self.group_by, self.key_pattern)
        if self.group_by and not self.calibration_fraction:
            raise ValueError("group_by is there for calibration_fraction: without it all photos train")
        if not self.calibration_fraction:
            refuse_ignored(self, ["false_alarm_rate"], because="without --calibration-fraction: nothing is calibrated")
        return self

    @model_validator(mode="after")
    def _check_variants(self) -> ComparisonConfig:
        for variant in self.variants:
            if variant not in PRESETS and variant not in self.custom:
                known = ", ".join([*PRESETS, *self.custom])
                raise ValueError(f"unknown variant {variant!r}, expected some of {known}")
            try:
                self.make_detector_config(variant, seed=0)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise ValueError(f"variant {variant}: {where} {first['msg']}".replace(" Value error,", "")) from error
        self._check_sets()
        if self.optimizer.patience is not None:
            raise ValueError(
                "optimizer.patience needs held-out photos, which a comparison has not: the last epoch counts"
            )
        return self

    def _check_sets(self) -> None:
        sets = name_sets(self.data, confirm=self.confirm)
        left = len(set(sets) - set(self.confirm))
        if self.leave_one_set_out and left < 2:
            raise ValueError(f"leave_one_set_out needs at least 2 data sets beside those that confirm, got {left}")
        if not left:
            raise ValueError("confirm names all data sets: nothing is left to compare on")

    def make_detector_config(self, variant: str, *, seed: int) -> DetectorConfig:
        """Returns the detector of a unit: the defaults, changed by the common settings, then by the variant.

        Raises:
            pydantic.ValidationError: they do not go together.
        """
        differs = self.custom[variant] if variant in self.custom else list_given_fields(PRESETS[variant])
        common = self.detector.model_dump(mode="json", exclude_unset=True)
        given = merge(common, differs)
        detector = settle_attention(merge(DetectorConfig().model_dump(mode="json"), given), given=given)
        return DetectorConfig.model_validate({**detector, "variant": variant, "seed": seed})


def list_given_fields(preset: dict[str, Any]) -> dict[str, object]:
    """Returns a preset as the fields that it sets, at every level."""
    return DetectorConfig.model_validate(preset).model_dump(mode="json", exclude_unset=True)


def name_sets(data: Sequence[str], *, confirm: Sequence[str]) -> list[str]:
    """Names data sets by their folders. Raises ValueError where one that is to confirm is none of them."""
    sets = [root.rstrip("/").rsplit("/", 1)[-1] for root in data]
    if unknown := [name for name in confirm if name not in sets]:
        raise ValueError(f"confirm: {unknown[0]} is none of the data sets {', '.join(sets) or '(none given)'}")
    return sets
