"""Configuration of the measurement beside other engines."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from jobs.config import JobConfig, LocalPath, Uri, split_at_commas

EngineName = Literal["ours", "ray_data", "daft", "dataloader", "loop"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


def list_installed_engines() -> list[EngineName]:
    """Names the engines that this Python can run."""
    return [name for name in ENGINES if name != "daft" or find_spec("daft") is not None]


class EnginesBenchmarkConfig(JobConfig):
    """Measure our job beside Ray Data, Daft, a DataLoader and bare processes: seconds, images/s, CPU per image."""

    photos: Uri | None = Field(None, description="JPEG photos to score; default: drawn ones of 1152 px")
    scratch: Uri | None = Field(
        None, description="folder for archive and results, such as one of the object store; default: a local one"
    )
    archive_photos: int = Field(1200, ge=2, description="photos that each engine scores, repeated as needed")
    image_size: int = Field(224, ge=64, description="side in pixels of the network's input")
    batch_photos: int = Field(64, ge=1, description="photos of a batch of the others; our job chooses its own")
    engines: Annotated[list[EngineName], BeforeValidator(split_at_commas)] = Field(
        default_factory=list_installed_engines,
        min_length=1,
        description="which of them, with commas; default: those that are installed (extra `engines`: daft)",
    )
    repeats: int = Field(3, ge=1, description="interleaved runs of each, after one that warms it up")
    output: LocalPath = Field("build/bench-engines.json", description="file to write")

    @property
    def warm_up_photos(self) -> int:
        """Photos of the run that warms an engine up: two batches."""
        return min(self.archive_photos, 2 * self.batch_photos)
