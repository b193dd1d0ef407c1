"""Configurations of the benchmarks, one for each sub-command but peers, which has its own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from jobs.config import JobConfig, LocalPath, PlaceKind, Texts, Uri, split_at_commas
from model.config import AttentionKind, BackboneName, FlowConfig, Precision

Uris = Annotated[list[Uri], BeforeValidator(split_at_commas)]
Integers = Annotated[list[int], BeforeValidator(split_at_commas)]


class NetworkBenchmarkConfig(JobConfig):
    """Measure the network stage against the machine's matrix products."""

    repeats: int = Field(5, ge=1, description="interleaved repeats")
    output: LocalPath = Field("build/bench-network.json", description="file to write")


class GpuBenchmarkConfig(JobConfig):
    """Measure scoring on a GPU against its bf16 products and its memory's bandwidth."""

    device: Literal["cuda", "cpu"] = Field("cuda", description="where it is measured; cpu tries the measurement itself")
    preset: str = Field("differnet", description="the detector's preset, with random weights")
    precision: Precision = Field("bf16", description="arithmetic of its networks")
    batch_photos: int = Field(64, ge=1, description="photos of a batch, in the CPU's memory")
    repeats: int = Field(10, ge=1, description="batches that are timed, after one that warms up")
    gemm_side: int = Field(8192, ge=64, description="rows and columns of the matrices whose product is the peak")
    copied_mib: int = Field(1024, ge=1, description="MiB of the copies whose speed is the bandwidth")
    output: LocalPath = Field("build/bench-gpu.json", description="file to write")


class FidelityBenchmarkConfig(JobConfig):
    """Measure cost and scores against DifferNet's own procedure, on the same photos, weights and views."""

    data: Uris = Field(
        default_factory=list, description="labelled sets in MVTec layout, with commas; default: a drawn one"
    )
    backbone: BackboneName = Field("alexnet", description="backbone of the compared detectors")
    weights: str = Field("random", description="its weights: random, imagenet or the URI of a file")
    image_size: int = Field(448, ge=64, description="side in pixels of the network's input")
    views: int = Field(64, ge=1, le=360, description="views per photo")
    train_photos: int = Field(100, ge=2, description="flawless photos of each set to train on")
    test_photos: int = Field(60, ge=2, description="test photos of each set, half of them defective")
    repeat_photos: int = Field(12, ge=1, description="photos in one turn of each procedure")
    epochs: int = Field(6, ge=1, description="epochs of training the compared detectors")
    output: LocalPath = Field("build/bench-fidelity.json", description="file to write")


class JobBenchmarkConfig(JobConfig):
    """Measure the Ray job against a bare loop, with as many processes as the machine has cores."""

    photos: Uri | None = Field(None, description="JPEG photos to score; default: drawn ones of 1152 px")
    scratch: Uri | None = Field(None, description="folder for the job's archive and results; default: a local one")
    job_photos: int = Field(2000, ge=1, description="photos of the Ray job and of the loop")
    views: int = Field(4, ge=1, le=360, description="views per photo of the Ray job and of the loop")
    repeats: int = Field(5, ge=1, description="repeats of loop and job in turns")
    use_gpu: bool = Field(False, description="the job scores on GPUs; the loop stays on the cores")
    memory_photos: Integers = Field(
        default_factory=list, description="sizes of two more jobs whose peak memory is compared, such as 2000,20000"
    )
    output: LocalPath = Field("build/bench-job.json", description="file to write")


class PlacesBenchmarkConfig(JobConfig):
    """Measure what it costs to say where photos deviate, in CPU from fetching a photo to its row."""

    photos: Uri | None = Field(None, description="JPEG photos to score; default: drawn ones of 1152 px")
    archive_photos: int = Field(400, ge=8, description="photos of a turn, repeated as needed")
    preset: str = Field("gaussian_resnet18", description="the detector's preset, with random weights")
    repeats: int = Field(5, ge=1, description="turns of each, after one that warms it up")
    output: LocalPath = Field("build/bench-places.json", description="file to write")


class TrainingBenchmarkConfig(JobConfig):
    """Measure training against DifferNet's own loop, in CPU seconds per photo and view."""

    batch_photos: int = Field(24, ge=1, description="photos per step, also the number of photos")
    image_size: int = Field(448, ge=64, description="side in pixels of the network's input")
    repeats: int = Field(2, ge=1, description="interleaved repeats")
    kept_epochs: int = Field(4, ge=2, description="epochs measured where features are kept")
    whole_epochs: int = Field(192, ge=1, description="epochs that the one pass over the photos is spread over")
    output: LocalPath = Field("build/bench-train.json", description="file to write")


class ReproductionBenchmarkConfig(JobConfig):
    """Reproduce DifferNet by its authors' loop, and measure what each deviation from it costs in AUROC.

    Finished runs are kept, as are the features of all views, so the same command again goes on.
    """

    output_kind: ClassVar[PlaceKind | None] = "folder"

    data: Uri = Field(description="labelled set in MVTec layout, such as the magnetic tiles in their authors' split")
    category: str | None = Field(None, description="category of it; default: the only one")
    weights: str = Field("imagenet", description="weights of torchvision's AlexNet: imagenet, random or a file's URI")
    recipes: Texts = Field(
        default_factory=list, description="what to run, of the names that the table has, with commas; default: all"
    )
    image_size: int = Field(448, ge=64, description="side in pixels of the largest scale of all recipes but 256_px")
    epochs: int = Field(192, ge=1, description="passes over the training photos")
    seeds: Integers = Field([0, 1, 2], min_length=1, description="seeds of flow and order, with commas")
    train_angles: int = Field(64, ge=4, description="angles of each training photo whose features are computed")
    test_angles: int = Field(64, ge=1, description="views of each test photo; DifferNet has 64")
    precision: Precision = Field("fp32", description="arithmetic of convolutions and coupling subnets")
    flow: FlowConfig = Field(default_factory=FlowConfig, description="flow of all recipes but the small ones")
    output: LocalPath = Field("build/reproduction", description="folder for features/, runs/ and reproduction.json/.md")


class ScaleBenchmarkConfig(JobConfig):
    """Measure the cost per row of everything around the photos, and the driver's memory, at several sizes."""

    sizes: Integers = Field(
        [10_000, 100_000, 1_000_000, 10_000_000], min_length=1, description="rows of the archives, with commas"
    )
    settled_share: float = Field(0.2, ge=0, lt=1, description="share of the rows that an earlier run has scored")
    output: LocalPath = Field("build/bench-scale.json", description="file to write")


class NightsBenchmarkConfig(JobConfig):
    """Measure whether a night grows slower, and the table into more files, after a year of nights."""

    nights: int = Field(365, ge=2, description="nights of history")
    rows: int = Field(20_000, ge=1, description="new objects a night")
    measured: int = Field(3, ge=1, description="nights that are run and timed, at the beginning and at the end each")
    optimize_every: int = Field(7, ge=1, description="nights between two compactions of the table")
    output: LocalPath = Field("build/bench-nights.json", description="file to write")


class LocalizationBenchmarkConfig(JobConfig):
    """Measure how well maps find defects that are marked by masks or boxes: every way to make them, side by side.

    A seed that is done is kept, so the same command again goes on.
    """

    data: Uri = Field(description="labelled set in MVTec layout; masks lie in ground_truth/<defect>/<name>_mask.png")
    boxes: Uri | None = Field(
        None, description="JSON of name -> x, y, width, height in pixels, beside its photos; they take the masks' place"
    )
    variant: str = Field("gaussian_resnet18", description="preset of the detector that is trained")
    weights: str = Field("imagenet", description="its backbone's: random, imagenet or the URI of a file")
    attention: AttentionKind | None = Field(
        None, description="attention after each stage that the preset pools, trained on flawless photos; default: none"
    )
    precision: Precision = Field("bf16", description="arithmetic of its convolutions")
    photos: int | None = Field(None, ge=1, description="marked photos to look at, drawn at random; default: all")
    draw_seed: int = Field(0, ge=0, description="seed of that draw")
    seeds: Integers = Field(
        [0], min_length=1, description="seeds of the training, with commas; only attention and flows depend on them"
    )
    output: LocalPath = Field(
        "build/bench-localization.json", description="file to write; runs that are done are kept in a folder beside it"
    )
