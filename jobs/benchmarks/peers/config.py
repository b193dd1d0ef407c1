"""Configuration of the measurement beside anomalib."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from jobs.config import JobConfig, LocalPath, Uri
from jobs.evaluation.comparison_config import name_sets

PeerName = Literal[
    "patchcore_wide_resnet50",
    "fastflow_wide_resnet50",
    "patchcore_alexnet",
    "fastflow_alexnet",
    "patchcore_resnet18",
    "padim_resnet18",
    "fastflow_resnet18",
    "cflow_resnet18",
]
"""A model of anomalib and its backbone: timm's wide ResNet-50, or the one of our detectors."""
PEERS: tuple[PeerName, ...] = get_args(PeerName)
DEFAULT_PEERS: tuple[PeerName, ...] = PEERS[:4]
"""Those that go with the backbone of infra/runs/comparison.yaml."""


class AnomalibSettings(JobConfig):
    """How anomalib's models are built and fitted; all else is their default."""

    image_size: int = Field(256, ge=64, description="side in pixels of their input; 256 is their default")
    wide_resnet_weights: Literal["imagenet", "random"] = Field(
        "imagenet",
        description="imagenet is downloaded by timm; random ones give speed alone, with a memory of noise",
    )
    coreset_ratio: float = Field(0.1, gt=0, le=1, description="share of the patches that PatchCore keeps")
    coreset: Literal["greedy", "random"] = Field(
        "greedy",
        description="how PatchCore chooses its patches: greedy is anomalib's choice, hours on a CPU for a tenth of "
        "them; random keeps as many, drawn evenly, so that scoring does the same work",
    )
    fastflow_epochs: int = Field(
        20, ge=0, description="epochs of FastFlow, of which the last is kept; 0 measures its speed alone"
    )
    cflow_epochs: int = Field(50, ge=0, description="epochs of CFLOW-AD, in the same way; 50 is anomalib's default")


class PeersBenchmarkConfig(JobConfig):
    """Measure scoring speed and AUROC against anomalib, on the same photos, and write them to a JSON file."""

    data: list[Uri] = Field(
        default_factory=list,
        description="labelled data sets in MVTec layout, separated by commas; speed is measured on the first one; "
        "default: drawn photos",
    )
    weights: str = Field(
        "random",
        description="weights of the backbone in settings, as --detector.weights of a comparison; random measures speed "
        "alone",
    )
    settings: LocalPath = Field(
        "infra/runs/comparison.yaml",
        description="configuration of jobs.comparison that our detectors are trained with; infra/runs/peers.yaml has "
        "the backbone of the peers on ResNet-18",
    )
    variants: list[str] = Field(
        ["attentdiffernet_best", "differnet"], min_length=1, description="our detectors, presets or names from settings"
    )
    peers: list[PeerName] = Field(
        list(DEFAULT_PEERS),
        min_length=1,
        description="anomalib's models and their backbones; one that is not wide_resnet50 is that of settings, with "
        "the same weights",
    )
    confirm: list[str] = Field(
        default_factory=list,
        description="data sets, by the last part of their path, that are left out of the mean difference and reported "
        "by themselves, separated by commas",
    )
    seeds: int = Field(1, ge=1, le=100, description="seeds of the AUROC, from 0; speed is measured with seed 0")
    photos: int = Field(32, ge=1, description="test photos of one timed pass")
    repeats: int = Field(3, ge=1, description="interleaved timed passes of each, after one that warms it up")
    batch_photos: int = Field(32, ge=1, description="photos of a batch, on both sides; 32 is anomalib's default")
    threads: int = Field(1, ge=1, description="threads that torch may use, on both sides")
    anomalib: AnomalibSettings = Field(default_factory=AnomalibSettings, description="the peers' settings")
    output: LocalPath = Field("build/bench-peers.json", description="file to write")

    @model_validator(mode="after")
    def _names_are_given_once(self) -> PeersBenchmarkConfig:
        for field, names in (("variants", self.variants), ("peers", self.peers)):
            if len(set(names)) < len(names):
                raise ValueError(f"{field} names one twice: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _confirming_sets_are_there(self) -> PeersBenchmarkConfig:
        name_sets(self.data, confirm=self.confirm)
        return self
