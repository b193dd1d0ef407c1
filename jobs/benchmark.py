"""Verb: how fast scoring is, as ratios measured side by side in one run, written to build/bench.json.

The network stage against the machine's matrix products (jobs.benchmarks.network), our scores against DifferNet's own
procedure (jobs.benchmarks.fidelity), and the Ray job against a bare loop (jobs.benchmarks.job). CPU seconds where one
process does the work; wall seconds where several do.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from jobs.cli import parse_config, run_command
from jobs.config import JobConfig, Uri
from jobs.errors import EXIT_DONE, RequestError
from jobs.storage.uris import normalize
from model.config import BackboneName

_SHOWN = (
    "gemm_peak_fraction",
    "gemm_best_fraction",
    "vs_differnet_cpu_ratio",
    "spearman_vs_differnet",
    "auroc_delta",
    "ray_vs_loop_ratio",
    "submission_to_first_batch_s",
)


def _as_uris(sets: list[str]) -> list[str]:
    return [normalize(uri) for uri in sets]


class BenchmarkConfig(JobConfig):
    """Measure scoring speed as ratios and write them to a JSON file."""

    parts: list[Literal["network", "fidelity", "job"]] = Field(
        ["network", "fidelity", "job"], description="what to measure, with commas between them"
    )
    output: str = Field("build/bench.json", description="file to write; figures of parts left out are kept")
    repeats: int = Field(5, ge=1, description="interleaved repeats of network and job")
    data: Annotated[list[str], AfterValidator(_as_uris)] = Field(
        default_factory=list,
        description="labelled sets in MVTec layout to compare with DifferNet on, with commas; default: a drawn one",
    )
    backbone: BackboneName = Field("alexnet", description="backbone of the comparison with DifferNet")
    weights: str = Field("random", description="its weights: random, imagenet or the URI of a file")
    image_size: int = Field(448, ge=64, description="side in pixels of the comparison with DifferNet")
    views: int = Field(64, ge=1, le=360, description="views per photo against DifferNet")
    train_photos: int = Field(100, ge=2, description="flawless photos of each set to train on")
    test_photos: int = Field(60, ge=2, description="test photos of each set, half of them defective")
    repeat_photos: int = Field(12, ge=1, description="photos in one turn of each procedure")
    epochs: int = Field(6, ge=1, description="epochs of training the compared detectors")
    photos: Uri | None = Field(None, description="JPEG photos of the job; default: drawn ones of 1152 px")
    scratch: Uri | None = Field(None, description="folder for the job's archive and results; default: a local one")
    job_photos: int = Field(2000, ge=1, description="photos of the Ray job and of the loop it is measured against")
    job_views: int = Field(4, ge=1, le=360, description="views per photo of the Ray job and of the loop")
    memory_photos: list[int] = Field(
        default_factory=list, description="sizes of two more jobs whose peak memory is compared, such as 2000,20000"
    )

    @field_validator("parts", "data", "memory_photos", mode="before")
    @classmethod
    def _split_at_commas(cls, given: object) -> object:
        if isinstance(given, list):
            return [part for item in given for part in (item.split(",") if isinstance(item, str) else [item])]
        return given.split(",") if isinstance(given, str) else given


def main(argv: Sequence[str]) -> int:
    """Measures what was asked for and writes the figures."""
    config = parse_config(BenchmarkConfig, argv, prog="python -m jobs.benchmark")
    from model.process import keep_freed_memory, prepare_process
    from model.versions import read_versions

    prepare_process()
    keep_freed_memory()
    output = Path(config.output)
    figures: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as scratch:
        for part in config.parts:
            figures |= _MEASURED[part](config, Path(scratch))
    figures |= {"cores": os.cpu_count(), "versions": read_versions()}
    figures["config"] = figures.get("config", {}) | dict.fromkeys(config.parts, config.model_dump(mode="json"))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2))
    for name in (name for name in _SHOWN if name in figures):
        print(f"{name}: {figures[name]:.4g}")
    print(f"written to {config.output}")
    return EXIT_DONE


def _network(config: BenchmarkConfig, _scratch: Path) -> dict[str, Any]:
    from jobs.benchmarks.network import measure_network

    return measure_network(repeats=config.repeats)


def _fidelity(config: BenchmarkConfig, scratch: Path) -> dict[str, Any]:
    from jobs.benchmarks.fidelity import FidelityRequest, measure_fidelity
    from jobs.detectors.backbone_weights import load_backbone_weights
    from jobs.synthetic.archive import draw_archive
    from model.config import DetectorConfig

    sets = config.data
    if not sets:
        half = config.test_photos // 2
        draw_archive(scratch, size_px=448, train_good=config.train_photos, test_good=half, missing_cap=half, rust=0)
        sets = [normalize(str(scratch / "data"))]
    detector = DetectorConfig(
        variant="differnet",
        backbone=config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        views=config.views,
        feature_scaling="channel",
    )
    request = FidelityRequest(
        sets, detector, config.train_photos, config.test_photos, config.repeat_photos, config.epochs
    )
    return measure_fidelity(request, weights=load_backbone_weights(detector, asked_as=f"--weights {config.weights}"))


def _job(config: BenchmarkConfig, scratch: Path) -> dict[str, Any]:
    from jobs.benchmarks.job import JobRequest, job_figures
    from model.config import DetectorConfig
    from model.hardware import has_fast_bf16

    detector = DetectorConfig(
        variant="differnet",
        weights="random",
        views=config.job_views,
        precision="bf16" if has_fast_bf16("cpu") else "fp32",
    )
    return job_figures(
        JobRequest(
            photos=_photos(config, scratch),
            scratch=config.scratch or normalize(str(scratch / "job")),
            folder=scratch,
            job_photos=config.job_photos,
            detector=detector,
            repeats=config.repeats,
            memory_photos=config.memory_photos,
        )
    )


def _photos(config: BenchmarkConfig, scratch: Path) -> list[bytes]:
    from jobs import storage
    from jobs.synthetic.archive import draw_archive

    if config.photos is None:
        draw_archive(scratch / "drawn", size_px=1152, train_good=0, test_good=12, missing_cap=6, rust=6)
        return [path.read_bytes() for path in sorted((scratch / "drawn" / "data").rglob("*.jpg"))]
    found = [storage.read(info.uri) for info in storage.list_objects(config.photos)]
    if not found:
        raise RequestError(f"{config.photos} is empty: expected JPEG photos under this prefix")
    return found


_MEASURED: dict[str, Callable[[BenchmarkConfig, Path], dict[str, Any]]] = {
    "network": _network,
    "fidelity": _fidelity,
    "job": _job,
}


if __name__ == "__main__":
    run_command(main)
