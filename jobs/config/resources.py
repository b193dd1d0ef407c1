"""How much of the cluster scoring takes."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from jobs.config.base import JobConfig
from jobs.config.values import AskedPrecision
from model.config import MAX_PIXELS


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
    precision: AskedPrecision = Field(
        "auto",
        description="arithmetic of the networks: auto takes bf16 where the machine is fast at it (AMX, AVX512-BF16, "
        "GPU) and the detector was calibrated with it, else fp32; a precision by name must be that of the calibrations",
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels; larger headers are refused unread")
    decode_timeout_s: float = Field(
        60, gt=0, le=86_400, description="seconds that decoding one photo may take; then it has failed"
    )
    decode_memory_gib: float = Field(
        4, gt=0, le=1_000_000, description="GiB that decoding one photo may take; then it has failed"
    )

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
