"""Configuration of the report command."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.config import JobConfig, Name, Uri
from model.config import MAX_PIXELS


class ReportConfig(JobConfig):
    """Write one page of what a run found: photos to review, drift, sites, reasons."""

    results: Uri = Field(description="the results of jobs.score")
    run_id: Name = Field(description="the run to show")
    output: Uri | None = Field(
        None, description="HTML file to write, on any storage; default: <results>/reports/<run_id>.html"
    )
    top: int = Field(48, ge=0, le=1000, description="how many of the most anomalous photos to show")
    history_days: int = Field(
        28, ge=1, le=36_500, description="days before the run whose p-values tonight's are compared with"
    )
    thumbnail_px: int = Field(384, ge=32, le=2048, description="longer side in pixels of the photos inside the page")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels that is decoded for the page")


class SampleConfig(JobConfig):
    """Draw photos of a run at random to be looked at: a list and a page that do not tell which of them score high.

    Their verdicts say what was missed, and may calibrate a detector again; verdicts on the most anomalous say neither.
    """

    results: Uri = Field(description="the results of jobs.score")
    run_id: Name = Field(description="the run to draw from")
    n: int = Field(200, ge=1, le=5000, description="photos to draw, of the run or of each category or site")
    per: Literal["run", "category", "site"] = Field(
        "run",
        description="run: all scored photos alike; category or site: n of each, which says more of small ones (but "
        "photos drawn per site do not calibrate: the sites have other shares then than in the archive)",
    )
    seed: int = Field(0, ge=0, description="another one draws other photos; the same one draws the same")
    thumbnail_px: int = Field(384, ge=32, le=2048, description="longer side in pixels of the photos inside the page")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="largest photo in pixels that is decoded for the page")


class AddVerdictsConfig(JobConfig):
    """Add what people found on photos to the verdicts beside the results; the newest verdict on a photo holds."""

    results: Uri = Field(description="the results of jobs.score")
    file: Uri = Field(
        description="CSV or Parquet with image_uri and verdict (good, defect or unsure), and any of image_etag, box, "
        "by, at: what the page of jobs.report downloads"
    )
    by: str | None = Field(None, description="who looked, where the file does not say it; default: this user")
