"""Holds a prediction against the real job: the CPU of two runs of different sizes, whose difference is the photos'."""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from jobs import storage
from jobs.benchmarks.engines.archive import CATEGORY, register_champion
from jobs.benchmarks.process_tree import CpuSampler
from jobs.cluster.session import start_own_ray
from jobs.scoring.config import ScoreConfig
from jobs.scoring.run import score_archive
from jobs.sizing.config import CapacityConfig
from jobs.sizing.measurement import list_photos, make_detector_config
from jobs.sizing.plan import compute_photo_costs
from model.detector import AttentDifferNet

_SMALL_SHARE = 4
"""The small run has a quarter of the photos: enough for as many processes as the large one, which start alike."""


def check_prediction(config: CapacityConfig) -> str:
    """Scores photos by the real job on a local Ray and returns a line that compares its CPU with the prediction.

    Args:
        config: with measured costs; its photos are repeated up to ``check_photos``.
    """
    wanted = int(config.check_photos or 0)
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-check-") as name:
        folder = Path(name)
        copy_photos(config, folder, count=wanted)
        detector = AttentDifferNet(make_detector_config(config))
        register_champion(detector, detectors=f"file://{folder}/detectors", artifact=folder / "artifact")
        start_own_ray()
        with redirect_stdout(sys.stderr):  # the plan alone is the answer
            score_folder(folder, "warm-up")  # imports are not the photos'
            small_s, large_s = score_folder(folder, "small"), score_folder(folder, "large")
    measured_ms = 1000 * (large_s - small_s) / (wanted - wanted // _SMALL_SHARE)
    predicted_ms = compute_photo_costs(config).cpu_ms / config.costs.used_share
    return (
        f"the job took {measured_ms:.1f} ms of CPU for each of the last {wanted - wanted // _SMALL_SHARE} photos, "
        f"predicted {predicted_ms:.1f} ms: {100 * (predicted_ms / measured_ms - 1):+.0f} %"
    )


def copy_photos(config: CapacityConfig, folder: Path, *, count: int) -> None:
    """Copies the measured photos, repeated, into a small archive, another one for the warm-up, and a large one."""
    listed, _ = list_photos(str(config.measure), at_most=config.measure_photos)
    contents = [storage.read(one.uri) for one in listed]
    for archive, photos in {"warm-up": count // _SMALL_SHARE, "small": count // _SMALL_SHARE, "large": count}.items():
        place = folder / archive / CATEGORY
        place.mkdir(parents=True)
        for number in range(photos):
            (place / f"{number:06d}.jpg").write_bytes(contents[number % len(contents)])


def score_folder(folder: Path, archive: str) -> float:
    """Runs the job over an archive, and returns the CPU seconds of this process and all that it has started."""
    request = ScoreConfig(
        archive=str(folder / archive),
        detectors=str(folder / "detectors"),
        results=str(folder / f"{archive}-results"),
        run_id=archive,
        top=0,
    )
    with CpuSampler() as sampler:
        score_archive(request)
    return sampler.cpu_s
