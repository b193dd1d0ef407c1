"""Configuration of the capacity command: what is asked, and every cost that the answer is computed from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config import JobConfig, LocalPath, Uri, refuse_ignored
from jobs.sizing.costs import DETECTORS
from jobs.sizing.quantities import Quantities
from model.config import Precision
from model.presets import DEFAULT_VARIANT

DEFAULT_HOURS = 8.0
MAX_COST = 1e9
"""Of every cost, price and rate: larger figures are slips, and their products no numbers any more."""


class CostConfig(JobConfig):
    """Measured costs; each can be replaced by one of your own."""

    decode_ms_per_megapixel: float | None = Field(
        None,
        gt=0,
        le=MAX_COST,
        description="CPU ms to fetch, decode and resize a megapixel of JPEG; default: as measured",
    )
    view_ms: float | None = Field(
        None, gt=0, le=MAX_COST, description="CPU ms of rotation, network and flow for a view; default: as measured"
    )
    gpu_view_ms: float | None = Field(
        None, gt=0, le=MAX_COST, description="ms of a GPU for a view, from infra/gpu-check.sh; needed with --use-gpu"
    )
    row_ms: float = Field(
        0.3, ge=0, le=MAX_COST, description="CPU ms of a photo's row beside decoding and network: Ray, staging"
    )
    used_share: float = Field(
        0.87, gt=0, le=1, description="share of the cores' time that photos get, beside Ray's own processes"
    )
    start_s: float = Field(19, ge=0, le=MAX_COST, description="seconds from submission to the first scored batch")
    list_s_per_million: float = Field(
        15,
        ge=0,
        le=MAX_COST,
        description="seconds to list a million keys and put them in order, before the first is scored",
    )
    driver_us_per_row: float = Field(
        30,
        ge=0,
        le=MAX_COST,
        description="seconds of the driver on the clock for a million rows: what no further node makes faster",
    )
    commit_s: float = Field(
        0.5, ge=0, le=MAX_COST, description="seconds of a commit to the table; slices follow one another"
    )
    commit_us_per_row: float = Field(
        60, ge=0, le=MAX_COST, description="seconds to reconcile and write a million rows of slices"
    )


class PriceConfig(JobConfig):
    """Prices in US dollars; yours differ, so give them."""

    core_hour: float = Field(
        0.04, ge=0, le=MAX_COST, description="a core for an hour, about a general machine of a cloud on demand"
    )
    gpu_hour: float = Field(3.0, ge=0, le=MAX_COST, description="a GPU for an hour")
    million_gets: float = Field(0.4, ge=0, le=MAX_COST, description="a million GET requests, as S3 Standard lists it")
    million_lists: float = Field(5.0, ge=0, le=MAX_COST, description="a million LIST requests of 1000 keys each")


class CapacityConfig(JobConfig):
    """Compute cores, GPUs, bandwidth, hours and money for scoring so many photos, from measured costs."""

    photos: Quantities = Field(
        [10**6, 10**7, 10**8, 10**9], min_length=1, description="photos to score, such as 10M or 1M,2.5B, a line each"
    )
    megapixels: float = Field(12, gt=0, le=1e6, description="size of a photo")
    photo_mb: float | None = Field(
        None, gt=0, le=1e6, description="MB of a photo's file; default: 0.45 for each megapixel"
    )
    preset: str = Field(DEFAULT_VARIANT, description="the detectors' preset: " + ", ".join(DETECTORS))
    precision: Precision = Field("bf16", description="arithmetic of the networks")
    views: int | None = Field(None, ge=1, le=360, description="views of a photo; default: the preset's")
    hours: float | None = Field(None, gt=0, le=1e6, description="length of the night; default: 8, or what --cores take")
    cores: int | None = Field(
        None, ge=1, le=MAX_COST, description="cores of all workers together, to be told the hours"
    )
    use_gpu: bool = Field(False, description="views are computed on GPUs, the cores only decode")
    gpus: int | None = Field(None, ge=1, le=MAX_COST, description="GPUs beside --cores")
    fleets: Quantities = Field(
        default_factory=list,
        description="numbers of GPUs (without --use-gpu of cores), such as 8,64,512: say instead of a plan how fast "
        "each could score, and what one run waits for",
    )
    node_cores: int = Field(16, ge=1, le=MAX_COST, description="cores of a worker node")
    node_gbit: float = Field(10, gt=0, le=MAX_COST, description="Gbit/s between storage and a worker node")
    gets_per_s: float = Field(
        5500,
        gt=0,
        le=MAX_COST,
        description="GET requests a second that storage answers; S3 promises 5,500 for each prefix",
    )
    slice_photos: int = Field(
        32_768, ge=1, le=MAX_COST, description="photos of a commit, as --slice-photos of jobs.score"
    )
    costs: CostConfig = Field(default_factory=CostConfig, description="measured costs")
    prices: PriceConfig = Field(default_factory=PriceConfig, description="prices")
    measure: Uri | None = Field(
        None, description="folder of your own photos: measure decoding, network, sizes and listing with them, here"
    )
    measure_photos: int = Field(60, ge=2, description="photos to measure with")
    save: LocalPath | None = Field(None, description="YAML file for what was measured, to be given by --config")
    check_photos: int | None = Field(
        None, ge=32, description="also score so many of the photos by the real job, and say how far the formula is off"
    )
    format: Literal["text", "json"] = Field("text", description="how the answer is printed")

    @model_validator(mode="after")
    def _check_request(self) -> Self:
        if self.preset not in DETECTORS:
            raise ValueError(f"preset: expected one of {', '.join(DETECTORS)}, got {self.preset!r}")
        if self.hours is not None and self.cores is not None:
            raise ValueError("give --hours to be told the cores, or --cores to be told the hours, not both")
        if self.use_gpu and self.costs.gpu_view_ms is None:
            raise ValueError(
                "use_gpu needs --costs.gpu-view-ms: no GPU was measured here, infra/gpu-check.sh prints it"
            )
        if self.use_gpu and self.cores is not None and self.gpus is None:
            raise ValueError("use_gpu with --cores needs --gpus too")
        if not self.use_gpu and self.gpus is not None:
            raise ValueError("gpus are there for --use-gpu: give that too")
        if self.measure is None and (self.save or self.check_photos):
            raise ValueError("save and check_photos are there for --measure: give a folder of photos")
        if self.measure is None:
            refuse_ignored(self, ["measure_photos"], because="without --measure FOLDER")
        if self.fleets:
            refuse_ignored(
                self, ["photos", "hours", "cores", "gpus"], because="with --fleets, which says photos a second"
            )
        return self
