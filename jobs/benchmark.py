"""Verb: how fast scoring is, as ratios measured side by side in one run, written to build/bench.json.

Against DifferNet's own scoring procedure (jobs.benchmark_differnet), and the Ray job against a single-process loop over
the same stages. CPU seconds where one process does the work; wall seconds where several do.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from scipy.stats import spearmanr

from jobs import registry, scoring, storage, uris
from jobs.benchmark_differnet import score_as_differnet
from jobs.cli import parse_config, run_verb
from jobs.config import JobConfig, ScoreConfig, Uri
from jobs.demo_archive import draw_archive
from jobs.errors import EXIT_DONE, RequestError
from jobs.fetch import FetchDecode
from jobs.manifest import list_archive
from jobs.plan import ScoringPlan, plan_detectors
from jobs.publish import read_record, versions
from jobs.stages import ScoreImages
from model.artifact import save_artifact
from model.calibration import Calibration
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.image import decode_image

_CATEGORY = "insulator"


class BenchmarkConfig(JobConfig):
    """Measure scoring speed as ratios and write them to a JSON file."""

    photos: Uri | None = Field(None, description="JPEG photos to measure on; default: drawn ones of 1152 px")
    output: str = Field("build/bench.json", description="file to write")
    views: int = Field(64, ge=1, le=360, description="views per photo against DifferNet")
    repeats: int = Field(5, ge=1, description="interleaved repeats against DifferNet, each on photos of its own")
    photos_per_repeat: int = Field(4, ge=1, description="photos per repeat against DifferNet")
    job_photos: int = Field(256, ge=1, description="photos of the Ray job and of the loop it is measured against")
    job_views: int = Field(4, ge=1, le=360, description="views per photo of the Ray job and of the loop")


_Procedure = Callable[[AttentDifferNet, Sequence[bytes]], list[float]]


@dataclass(frozen=True)
class _Timed:
    scores: list[float]
    cpu_s: float


def main(argv: Sequence[str]) -> int:
    """Runs both comparisons and writes the figures."""
    config = parse_config(BenchmarkConfig, argv, prog="python -m jobs.benchmark")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as scratch:
        photos = _photos(config, Path(scratch))
        figures = _against_differnet(config, photos) | _against_loop(config, photos, Path(scratch))
    figures |= {"config": config.model_dump(mode="json"), "cores": os.cpu_count(), "versions": versions()}
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    Path(config.output).write_text(json.dumps(figures, indent=2))
    for name in ("vs_differnet_cpu_ratio", "spearman_vs_differnet", "ray_vs_loop_ratio"):
        print(f"{name}: {figures[name]:.4g}")
    print(f"written to {config.output}")
    return EXIT_DONE


def _photos(config: BenchmarkConfig, scratch: Path) -> list[bytes]:
    if config.photos:
        return [storage.read(info.uri) for info in storage.list_objects(config.photos)]
    draw_archive(scratch / "drawn", size_px=1152, train_good=0, test_good=12, missing_cap=6, rust=6)
    return [path.read_bytes() for path in sorted((scratch / "drawn" / "data").rglob("*.jpg"))]


def _against_differnet(config: BenchmarkConfig, photos: Sequence[bytes]) -> dict[str, Any]:
    """CPU seconds per photo of DifferNet's procedure over ours, median of interleaved repeats."""
    needed = config.repeats * config.photos_per_repeat
    if len(photos) < needed:
        raise RequestError(f"needed {needed} photos (--repeats x --photos-per-repeat), got {len(photos)}")
    detector = AttentDifferNet(DetectorConfig(variant="differnet", weights="random", views=config.views)).eval()
    ours: list[_Timed] = []
    theirs: list[_Timed] = []
    for repeat in range(config.repeats):
        some = photos[repeat * config.photos_per_repeat :][: config.photos_per_repeat]
        theirs.append(_timed(_score_as_differnet, detector, some))
        ours.append(_timed(_score_as_we_do, detector, some))
        ratio = theirs[-1].cpu_s / ours[-1].cpu_s
        print(
            f"repeat {repeat + 1}: DifferNet {theirs[-1].cpu_s:.1f} s, ours {ours[-1].cpu_s:.1f} s, ratio {ratio:.2f}"
        )
    ratios = [slow.cpu_s / fast.cpu_s for slow, fast in zip(theirs, ours, strict=True)]
    rank = spearmanr(
        np.concatenate([timed.scores for timed in theirs]), np.concatenate([timed.scores for timed in ours])
    )
    return {
        "vs_differnet_cpu_ratio": statistics.median(ratios),
        "vs_differnet_cpu_ratios": ratios,
        "differnet_cpu_s_per_photo": statistics.median(timed.cpu_s for timed in theirs) / config.photos_per_repeat,
        "our_cpu_s_per_photo": statistics.median(timed.cpu_s for timed in ours) / config.photos_per_repeat,
        "spearman_vs_differnet": float(rank.statistic),
    }


def _timed(work: _Procedure, detector: AttentDifferNet, photos: Sequence[bytes]) -> _Timed:
    began = time.process_time()
    scores = work(detector, photos)
    return _Timed(scores, time.process_time() - began)


def _score_as_differnet(detector: AttentDifferNet, photos: Sequence[bytes]) -> list[float]:
    return [score_as_differnet(detector, data) for data in photos]


def _score_as_we_do(detector: AttentDifferNet, photos: Sequence[bytes]) -> list[float]:
    images = torch.stack([decode_image(data, size=detector.config.image_size) for data in photos])
    return [float(value) for value in detector.score(images)]


def _against_loop(config: BenchmarkConfig, photos: Sequence[bytes], scratch: Path) -> dict[str, Any]:
    """Steady images per second of the Ray job over those of one process that runs the same stages in a loop."""
    archive = scratch / "archive" / _CATEGORY
    archive.mkdir(parents=True)
    for number in range(config.job_photos):
        (archive / f"{number:05d}.jpg").write_bytes(photos[number % len(photos)])
    detectors = uris.normalise(str(scratch / "detectors"))
    _register(detectors, scratch / "artifact", views=config.job_views)
    loop_images_per_s = _loop(uris.normalise(str(archive.parent)), detectors)
    results = uris.normalise(str(scratch / "results"))
    scoring.run(ScoreConfig(archive=str(archive.parent), detectors=detectors, results=results, run_id="bench", top=0))
    record = read_record(results, "bench") or {}
    return {
        "ray_vs_loop_ratio": record["images_per_s"] / loop_images_per_s,
        "ray_images_per_s": record["images_per_s"],
        "loop_images_per_s": loop_images_per_s,
        "job_timings_s": record["timings_s"],
    }


def _register(detectors: str, folder: Path, *, views: int) -> None:
    detector = AttentDifferNet(DetectorConfig(variant="differnet", weights="random", views=views))
    save_artifact(folder, detector, calibration=Calibration(scores=(0.0, 1.0)), metrics={})
    detector_id = registry.put(detectors, _CATEGORY, folder=folder)
    registry.set_alias(detectors, _CATEGORY, alias="champion", detector_id=detector_id)
    shutil.rmtree(folder)


def _unreported(counts: Mapping[str, int]) -> None:
    """Takes the place of progress in the loop."""


def _loop(archive: str, detectors: str) -> float:
    """Images per second of the same stages in this one process, without the time to load the detector."""
    manifest = list_archive(archive)
    plan = ScoringPlan(
        run_id="loop",
        detectors=detectors,
        by_category=plan_detectors(detectors, [_CATEGORY], alias="champion", false_alarm_rate=0.5),
        max_pixels=2**28,
        fetch_concurrency=32,
        detector_cache=1,
    )
    planned = plan.by_category[_CATEGORY]
    fetch = FetchDecode(image_sizes={_CATEGORY: planned.image_size}, max_pixels=plan.max_pixels, concurrency=32)
    stage = ScoreImages(plan=plan, report=_unreported, device="cpu")
    batch = max(4, 256 // planned.views)
    stage(fetch(manifest.slice(0, batch)))
    began = time.perf_counter()
    for start in range(0, len(manifest), batch):
        stage(fetch(manifest.slice(start, batch)))
    return len(manifest) / (time.perf_counter() - began)


if __name__ == "__main__":
    run_verb(main)
