"""Configuration of the measurement beside other engines."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from jobs.config import JobConfig, LocalPath, Uri, split_at_commas

EngineName = Literal["ours", "ray_data", "dataloader", "loop"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


class EnginesBenchmarkConfig(JobConfig):
    """Measure our job beside Ray Data's template, a DataLoader and bare processes: seconds, images/s, CPU per image."""

    photos: Uri | None = Field(None, description="JPEG photos to score; default: drawn ones of 1152 px")
    scratch: Uri | None = Field(
        None, description="folder for archive and results, such as one of the object store; default: a local one"
    )
    archive_photos: int = Field(1200, ge=2, description="photos that each engine scores, repeated as needed")
    image_size: int = Field(224, ge=64, description="side in pixels of the network's input")
    batch_photos: int = Field(64, ge=1, description="photos of a batch of the others; our job chooses its own")
    engines: Annotated[list[EngineName], BeforeValidator(split_at_commas)] = Field(
        list(ENGINES), min_length=1, description="which of them, with commas"
    )
    repeats: int = Field(3, ge=1, description="interleaved runs of each, after one that warms it up")
    output: LocalPath = Field("build/bench-engines.json", description="file to write")
