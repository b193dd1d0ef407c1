"""Configuration of a search."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config import (
    EXCLUSION,
    GROUP_BY,
    INCLUDE,
    KEY_PATTERN,
    Exclusion,
    JobConfig,
    Name,
    Patterns,
    Texts,
    Trackers,
    Uri,
    check_group_names,
)
from jobs.storage import uris
from model.config import MAX_PIXELS, DetectorConfig, OptimizerConfig
from model.presets import PRESETS
from tuning.space.config import SpaceConfig

LABEL_FREE_METRICS = ("held_out_gain", "shift_agreement", "seed_agreement", "synthetic_auroc")
"""Figures that need no labelled defect, see `tuning.trials.judge`."""
Objective = Literal["auto", "auroc", "held_out_gain", "shift_agreement", "seed_agreement", "synthetic_auroc"]


class SearchConfig(JobConfig):
    """Search attention placement and flow hyperparameters for one category, and compare what wins on its test photos.

    Trials are judged on validation photos, never on the test photos: those are opened once, when the winner stands. The
    same command again goes on with a search that was killed.
    """

    data: Uri = Field(description="data in MVTec layout: <category>/train/good, test/<label>, maybe validation/<label>")
    category: Name = Field(description="asset category")
    results: Uri = Field(description="folder for trials, tables, pictures, the page and the winner's YAML")
    detectors: Uri | None = Field(None, description="registry for the compared detectors; default: <results>/detectors")
    include: Patterns = INCLUDE
    exclude: Exclusion | None = EXCLUSION
    verdicts: Uri | None = Field(
        None,
        description="results of jobs.score: photos that people confirmed there as defects are the validation defects, "
        "and do not train; no share of test/ is taken then",
    )
    group_by: Texts = GROUP_BY
    key_pattern: str | None = KEY_PATTERN
    trials: int = Field(64, ge=1, description="trials in all, presets included")
    time_budget_s: float | None = Field(None, gt=0, description="seconds after which this run starts no more trials")
    objective: Objective = Field(
        "auto",
        description="what trials are judged by: auroc on labelled validation photos, or without labels one of "
        f"{', '.join(LABEL_FREE_METRICS)}; auto: auroc where there are validation defects",
    )
    cost: bool = Field(False, description="minimise the cost of scoring as a second objective; ends early stopping")
    validation_share: float = Field(
        0.3, gt=0, lt=1, description="share of test/ that becomes validation where there is no validation/ folder"
    )
    calibration_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of the flawless training photos that calibrate and that no judgement sees, and share of "
        "the others that trials are judged by",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler and of the trials' detectors")
    seeds_per_trial: int = Field(1, ge=1, le=10, description="trainings of a trial, whose metrics are averaged")
    startup_trials: int = Field(16, ge=1, description="trials before the sampler (TPE) follows what it has seen")
    early_stopping: bool = Field(True, description="stop the worst trials at a few epochs (ASHA)")
    grace_epochs: int = Field(3, ge=1, description="epochs before the first trial may be stopped")
    reduction_factor: int = Field(3, ge=2, description="one in so many trials passes a rung; rungs lie so far apart")
    concurrent: int | None = Field(None, ge=1, description="trials at a time; default: what the cluster has room for")
    workers: int = Field(1, ge=1, description="data-parallel training workers of a trial, by Ray Train if several")
    gpus_per_worker: float = Field(0.0, ge=0, le=8, description="GPUs of each worker; 0.5 lets two share one, 0: none")
    finalists: int = Field(5, ge=1, description="best trials that are trained again before one is chosen")
    finalist_seeds: int = Field(3, ge=1, le=100, description="seeds of each finalist, on validation photos")
    caution: float = Field(
        1.0,
        ge=0,
        description="standard errors of the validation AUROC by which a trial must lead the best preset to win; 0: any",
    )
    final: bool = Field(True, description="open the test photos and compare the winner with presets")
    seeds: int = Field(3, ge=1, le=100, description="seeds of the winner and of the presets in the final comparison")
    presets: Texts = Field(default_factory=lambda: list(PRESETS), description="presets to compare the winner with")
    alias: Name = Field("champion", description="alias that --promote moves")
    promote: bool = Field(
        False,
        description="move the alias to the winner if it beats what stands behind the alias, or else the best preset, "
        "by more than the 95 % interval",
    )
    trackers: Trackers = Field(default_factory=list, description="also log trials to mlflow and wandb (extra tracking)")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels; larger headers are refused unread")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="training, where nothing varies it")
    detector: DetectorConfig = Field(default_factory=DetectorConfig, description="detector, where nothing varies it")
    space: SpaceConfig = Field(default_factory=SpaceConfig, description="what is varied")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if unknown := [name for name in self.presets if name not in PRESETS]:
            raise ValueError(f"presets: expected some of {', '.join(PRESETS)}, got {unknown[0]!r}")
        if self.optimizer.patience is not None:
            raise ValueError("optimizer.patience: trials stop early by early_stopping, give null")
        return self

    @model_validator(mode="after")
    def _groups_are_named(self) -> Self:
        check_group_names(self.group_by, self.key_pattern)
        return self

    @model_validator(mode="after")
    def _can_be_judged_so(self) -> Self:
        if self.objective == "seed_agreement" and self.seeds_per_trial < 2:
            raise ValueError("objective seed_agreement needs seeds_per_trial of 2 or more")
        if self.promote and not self.final:
            raise ValueError("promote needs the final comparison: do not give final false")
        return self

    @property
    def registry(self) -> str:
        """Where detectors are registered."""
        return self.detectors or uris.join(self.results, "detectors")

    @property
    def identity(self) -> dict[str, object]:
        """What two runs must have in common to be one search: everything that decides a trial or the photos."""
        names = ("data", "category", "objective", "cost", "validation_share", "calibration_fraction", "seed")
        more = (
            "seeds_per_trial",
            "startup_trials",
            "max_pixels",
            "optimizer",
            "detector",
            "space",
            "group_by",
            "key_pattern",
        )
        # Searches of before had calibrated on the photos that judged: their trials were trained on other photos.
        return {
            **self.model_dump(mode="json", include={*names, *more}),
            "calibrated_on": "photos of groups that judge nothing",
        }
