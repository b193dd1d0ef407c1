"""What it costs to say where photos deviate: scoring with places beside scoring without, on the same photos."""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import pyarrow as pa
import torch

from jobs.benchmarks.config import PlacesBenchmarkConfig
from jobs.benchmarks.engines.archive import CATEGORY, list_or_draw_photos, register_champion
from jobs.benchmarks.process_tree import measure_cpu_s
from jobs.benchmarks.report import print_metrics, write_report
from jobs.config import ScoringResources
from jobs.decoding.fetch import stack_images
from jobs.decoding.photos import decode_rows
from jobs.scoring.local import LocalScorer
from jobs.scoring.plan import ScoringPlan, plan_detectors
from jobs.storage import uris
from jobs.tables.manifest import make_manifest
from model.config import MAX_PIXELS
from model.detector import AttentDifferNet
from model.hardware import find_faster_precision
from model.localization.fitting import fit_positions
from model.presets import get_random_preset
from model.training.photos import InMemory

_FITTED_PHOTOS = 8


def measure_places(config: PlacesBenchmarkConfig) -> None:
    """Measures CPU a photo, from fetching it to its row, with and without places, and prints the ratio.

    Raises:
        RequestError: there are no photos.
    """
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as folder:
        manifest = list_photos(config, Path(folder))
        scorers = build_scorers(config, manifest, Path(folder))
        found: dict[str, list[float]] = {name: [] for name in scorers}
        for turn in range(config.repeats + 1):
            for name, scorer in scorers.items():
                began = measure_cpu_s(os.getpid())
                rows = pa.Table.from_batches(scorer.score_rows(manifest.to_batches()))
                cpu_ms = 1000 * (measure_cpu_s(os.getpid()) - began) / len(rows)
                print(f"turn {turn}: {name} {cpu_ms:.2f} CPU ms a photo", flush=True)
                found[name] += [cpu_ms] if turn else []  # the first one warms up
    ratios = [mine / bare for mine, bare in zip(found["with"], found["without"], strict=True)]
    metrics = {f"cpu_ms_{name}_places": statistics.median(times) for name, times in found.items()}
    metrics |= {"places_cpu_ratio": statistics.median(ratios), "places_cpu_ratio_highest": max(ratios)}
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, tuple(metrics))


def list_photos(config: PlacesBenchmarkConfig, folder: Path) -> pa.Table:
    """Returns MANIFEST rows of the photos, repeated until there are as many as the configuration says.

    Raises:
        RequestError: there are none.
    """
    listed = list_or_draw_photos(config.photos, folder)
    chosen = (listed[number % len(listed)] for number in range(config.archive_photos))
    return make_manifest([{"image_uri": uri, "image_etag": None} for uri in chosen], category=CATEGORY)


def build_scorers(config: PlacesBenchmarkConfig, manifest: pa.Table, folder: Path) -> dict[str, LocalScorer]:
    """Registers a detector with random weights twice, with and without places; returns who scores with each."""
    detector = AttentDifferNet(get_random_preset(config.preset, precision=find_faster_precision("cpu"))).eval()
    scorers = {}
    for name in ("without", "with"):
        if name == "with":
            rows, _ = decode_rows(manifest[:_FITTED_PHOTOS], size=detector.config.image_size, max_pixels=MAX_PIXELS)
            fit_positions(
                detector, InMemory(torch.from_numpy(stack_images(rows["pixels"], size=detector.config.image_size)))
            )
        place = uris.normalize(str(folder / f"{name}-detectors"))
        register_champion(detector, detectors=place, artifact=folder / name)
        planned = plan_detectors(place, [CATEGORY], alias="champion", false_alarm_rate=None)
        plan = ScoringPlan(run_id=name, detectors=place, by_category=planned, max_pixels=MAX_PIXELS, root=None)
        scorers[name] = LocalScorer(len(manifest), plan=plan, resources=ScoringResources())
    return scorers
