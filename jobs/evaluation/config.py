"""Configuration of the evaluation command."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
)

from jobs.config import EXCLUDE, INCLUDE, Confidence, JobConfig, Name, Patterns, ScoringResources, Uri


class EvaluateConfig(JobConfig):
    """Score labelled photos with registered detectors: AUROC, AUPR and recall at 1 and 5 % false alarms.

    The false alarms on flawless photos are set against the rate that each detector's calibration promises.

    With --variants, every variant gets its mean and interval over seeds, and is compared with the first one by a paired
    bootstrap over photos and seeds. What is not registered is named and left out.
    """

    data: Uri = Field(description="data in MVTec layout: <category>/test/good and <category>/test/<defect>")
    detectors: Uri = Field(description="registry of trained detectors")
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
