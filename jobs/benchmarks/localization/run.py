"""One run for each seed, kept as soon as it is done, and the table of all ways to map, over seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks.config import LocalizationBenchmarkConfig
from jobs.benchmarks.localization.maps import CENTRE, make_detector_config, map_all, train_detector
from jobs.benchmarks.localization.marks import MarkedPhoto, list_photos
from jobs.benchmarks.report import write_report
from jobs.cluster.progress import format_duration
from jobs.detectors.lineage import hash_json
from jobs.tables.text import format_table
from model.localization.metrics import FIGURES, compare_pointing, measure_maps
from model.process import prepare_process
from model.processor import read_cpu_name

Run = dict[str, Any]
"""JSON of one seed: seed, photos, and per method its `Localization` and its pointing against the centre's."""


def measure_localization(config: LocalizationBenchmarkConfig) -> None:
    """Trains a detector for each seed, maps the marked photos in every way, and measures the maps."""
    for seed in config.seeds:
        make_detector_config(config, seed=seed)  # what is wrong with it is said before photos are listed
    prepare_process()
    training, marked = list_photos(config)
    runs = [read_or_measure(config, seed, training=training, marked=marked) for seed in config.seeds]
    write_report({"photos": len(marked), "runs": runs}, output=config.output, config=config)
    print(f"{len(marked)} photos of {config.boxes or config.data}, {config.precision}, {read_cpu_name()}")
    print(format_runs(runs))


def read_or_measure(
    config: LocalizationBenchmarkConfig, seed: int, *, training: Sequence[str], marked: Sequence[MarkedPhoto]
) -> Run:
    """Reads a run that was done before, or does it and keeps it."""
    path = locate_run(config, seed, training=training, marked=marked)
    if path.exists():
        kept: Run = json.loads(path.read_text())
        print(f"seed {seed}: done before, {path}")
        return kept
    run = measure_seed(config, seed, training=training, marked=marked)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=2))
    return run


def locate_run(
    config: LocalizationBenchmarkConfig, seed: int, *, training: Sequence[str], marked: Sequence[MarkedPhoto]
) -> Path:
    """Returns the file of a run, whose name holds everything that it depends on."""
    detector = make_detector_config(config, seed=seed).model_dump(mode="json")
    asked = {"detector": detector, "training": list(training), "marked": [uri for uri, _ in marked]}
    return Path(config.output).with_suffix("") / f"{config.variant}.seed{seed}.{hash_json(asked)}.json"


def measure_seed(
    config: LocalizationBenchmarkConfig, seed: int, *, training: Sequence[str], marked: Sequence[MarkedPhoto]
) -> Run:
    """Trains with one seed and measures all maps."""
    print(f"seed {seed}: training on {len(training)} photos", flush=True)
    began = time.monotonic()
    detector = train_detector(config, training, seed=seed)
    print(f"seed {seed}: trained after {format_duration(time.monotonic() - began)}", flush=True)
    maps, masks = map_all(detector, [uri for uri, _ in marked]), [mask for _, mask in marked]
    methods = {
        method: {**asdict(measure_maps(found, masks)), "against_centre": compare_pointing(found, maps[CENTRE], masks)}
        for method, found in maps.items()
    }
    return {"seed": seed, "photos": len(marked), "methods": methods}


def format_runs(runs: Sequence[Run]) -> str:
    """Formats a row a method: means over seeds; the interval of the difference is that of the first seed's photos."""
    first: Mapping[str, Any] = runs[0]["methods"]
    rows = []
    for method, one in first.items():
        means = [np.mean([run["methods"][method][name] for run in runs]) for name in FIGURES]
        mean, low, high = one["against_centre"]
        rows.append([f"`{method}`", *(f"{value:.2f}" for value in means), f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"])
    return format_table(["map", *FIGURES, "pointing against the centre"], rows, markdown=True)
