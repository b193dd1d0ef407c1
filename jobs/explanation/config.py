"""Configuration of the command that explains photos."""

from __future__ import annotations

from pydantic import Field, field_validator

from jobs.config import JobConfig, Name, Uri
from model.config import MAX_PIXELS

MAX_PHOTOS = 100
"""Photos of one picture."""


class ExplainConfig(JobConfig):
    """Show in one picture where the scores of some photos come from, a row a photo.

    Each row has the photo with the region that deviates most, the map that it comes from, and Grad-CAM of the score,
    with attention on and off where the detector has attention. The photos need no flag: IMAGE... --detector URI.
    """

    images: list[Uri] = Field(description="the photos, files or objects of any storage")
    detector: Uri = Field(
        description="folder of a detector; or of its category in a registry, REGISTRY/CATEGORY; or the registry, with "
        "category"
    )
    category: Name | None = Field(None, description="asset category, where detector is a whole registry")
    alias: Name = Field("champion", description="which registered detector of the category")
    output: Uri = Field("explanation.png", validate_default=True, description="PNG file to write, on any storage")
    panel_px: int = Field(320, ge=64, le=1024, description="longer side in pixels of each picture in the row")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels that is decoded")

    @field_validator("images")
    @classmethod
    def _fit_on_one_picture(cls, images: list[str]) -> list[str]:
        if not 1 <= len(images) <= MAX_PHOTOS:
            raise ValueError(f"expected 1 to {MAX_PHOTOS} photos, got {len(images)}")
        return images
