"""Configuration of the evaluation command."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from jobs.config import (
    EXCLUDE,
    INCLUDE,
    Confidence,
    JobConfig,
    Name,
    Patterns,
    PlaceKind,
    ScoringResources,
    Uri,
    refuse_ignored,
)

JUDGED_BY_VERDICTS = {"data", "detectors", "verdicts", "run_id"}
"""Fields that say what is judged; with verdicts there are no others."""


class EvaluateConfig(JobConfig):
    """Score labelled photos with registered detectors: AUROC, AUPR and recall at 1 and 5 % false alarms.

    The false alarms on flawless photos are set against the rate that each detector's calibration promises.

    With --variants, every variant gets its mean and interval over seeds, and is compared with the first one by a paired
    bootstrap over photos and seeds. What is not registered is named and left out.
    """

    output_kind: ClassVar[PlaceKind | None] = "folder"

    data: Uri = Field("", description="data in MVTec layout: <category>/test/good and <category>/test/<defect>")
    detectors: Uri = Field("", description="registry of trained detectors")
    verdicts: Uri | None = Field(
        None,
        description="instead of data and detectors: results of jobs.score, to say what people's verdicts make of the "
        "run_id's alarms, and what a random sample (jobs.sample) shows missed",
    )
    run_id: Name | None = Field(None, description="with verdicts: the run that they judge")
    categories: list[Name] = Field(default_factory=list, description="categories to evaluate; default: all in the data")
    include: Patterns = INCLUDE
    exclude: Patterns = EXCLUDE
    alias: Name = Field("champion", description="which detector of each category to evaluate, without --variants")
    variants: list[Name] = Field(
        default_factory=list,
        description="variants to evaluate, with commas between them, the one to compare with first: those behind the "
        "aliases <variant>.seed<k>",
    )
    seeds: int = Field(1, ge=1, le=1000, description="with --variants, k runs from 0 to seeds - 1")
    false_alarm_rate: float = Field(
        0.05, gt=0, lt=1, description="promised rate that the false alarms on flawless test photos are set against"
    )
    confidence: Confidence = None
    flawless: Literal["test", "calibration"] = Field(
        "test",
        description="flawless photos that defects are set against: those of test/good, or, where there are none, the "
        "scores of the photos that each detector was calibrated with (then nothing is said of false alarms)",
    )
    output: Uri | None = Field(
        None,
        description="folder to write metrics.json, metrics.parquet, results.parquet (a row per photo and detector) and "
        "histograms/*.png to",
    )
    scoring: ScoringResources = Field(default_factory=ScoringResources, description="share of the cluster")

    @model_validator(mode="after")
    def _check_what_is_judged(self) -> Self:
        if self.verdicts is not None and (self.data or self.detectors or self.run_id is None):
            raise ValueError("--verdicts RESULTS needs --run-id ID, and neither --data nor --detectors")
        if self.verdicts is None and not (self.data and self.detectors):
            raise ValueError("needed --data FOLDER and --detectors REGISTRY, or --verdicts RESULTS and --run-id ID")
        if self.verdicts is None and self.run_id is not None:
            raise ValueError("--run-id goes with --verdicts RESULTS")
        if self.verdicts is not None:
            others = [name for name in type(self).model_fields if name not in JUDGED_BY_VERDICTS]
            refuse_ignored(self, others, because="with --verdicts, which reads what people said of a run")
        refuse_ignored(
            self,
            ["alias"] if self.variants else ["seeds"],
            because="with --variants, which names the aliases" if self.variants else "without --variants",
        )
        return self
