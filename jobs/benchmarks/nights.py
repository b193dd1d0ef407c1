"""Night after night: whether a run grows slower, and the table into more files, while its history grows.

The table is compacted every week, as infra/docs/operating.md advises, and once more after the last
night. Every night has new objects and the null detector. The first and the last nights are the real job. Between them
the same rows are committed as the job commits them, without Ray, so that a year takes minutes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benchmarks.config import NightsBenchmarkConfig
from jobs.benchmarks.null_pipeline import score_with_null
from jobs.benchmarks.report import print_metrics, write_report
from jobs.benchmarks.scale_run import measure_peak_gib
from jobs.benchmarks.synthetic_fleet import make_objects, make_scores, register_null_detectors
from jobs.cluster.session import start_own_ray
from jobs.results.commit import commit_slice
from jobs.results.delta import open_table
from jobs.results.maintenance import optimize_table
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.tables.schema import LISTED

_FIRST_DAY = date(2025, 1, 1)


def measure_nights(config: NightsBenchmarkConfig) -> None:
    """Measures nights at the beginning and at the end of the history, and writes what they took."""
    start_own_ray()
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-nights-") as name:
        folder = Path(name)
        register_null_detectors(f"file://{folder}/detectors")
        score_night(folder, "warm-up", config.nights, config)
        nights = [measure_night(folder, number, config) for number in range(config.nights)]
        last_s, files = compact_table(folder), count_files(folder)
    metrics = {
        "night_growth": compare_ends(nights, "driver_cpu_s", config.measured),
        "night_growth_wall": compare_ends(nights, "seconds", config.measured),
        "driver_peak_gib": measure_peak_gib(),
        "files_after_first_night": nights[0]["files"],
        "files_after_last_compaction": files,
        "most_files": max(night["files"] for night in nights),
        "longest_compaction_s": max([last_s, *(night.get("compaction_s", 0.0) for night in nights)]),
        "nights": nights,
    }
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, [name for name in metrics if name != "nights"])


def compare_ends(nights: Sequence[Mapping[str, Any]], measure: str, measured: int) -> float:
    """Returns the median of the last nights over that of the first."""
    first, last = ([night[measure] for night in part] for part in (nights[:measured], nights[-measured:]))
    return float(statistics.median(last) / statistics.median(first))


def measure_night(folder: Path, number: int, config: NightsBenchmarkConfig) -> dict[str, Any]:
    """Runs a night, or commits its rows alone, and compacts the table when it is time.

    Returns:
        Seconds on the clock, CPU seconds of this process, files, and the seconds of a compaction after that. What Ray's
        workers take does not depend on the history, and falls out of a sum over processes when they end.
    """
    began, driver_cpu_s = time.monotonic(), time.process_time()
    if config.measured <= number < config.nights - config.measured:
        commit_night(folder, number, config)
    else:
        score_night(folder, "results", number, config)
    spent = {
        "seconds": time.monotonic() - began,
        "driver_cpu_s": time.process_time() - driver_cpu_s,
    }
    found = {name: round(value, 2) for name, value in spent.items()} | {"files": count_files(folder)}
    if number % config.optimize_every == config.optimize_every - 1:
        found["compaction_s"] = compact_table(folder)
    return found


def compact_table(folder: Path) -> float:
    """Compacts the table; returns the seconds that took."""
    began = time.monotonic()
    optimize_table(f"file://{folder}/results")
    return round(time.monotonic() - began, 2)


def score_night(folder: Path, results: str, number: int, config: NightsBenchmarkConfig) -> None:
    """Runs the job over the new objects of a night."""
    archive = folder / "archive.parquet"
    pq.write_table(pa.table(make_objects(number_night(number, config.rows)), schema=LISTED), archive)
    request = ScoreConfig(
        archive=str(archive),
        detectors=str(folder / "detectors"),
        results=str(folder / results),
        run_id=f"night-{number:04d}",
        top=0,
    )
    scoring.score_archive(request, pipeline=score_with_null)


def commit_night(folder: Path, number: int, config: NightsBenchmarkConfig) -> None:
    """Commits the rows that the job would commit."""
    results = f"file://{folder}/results"
    table = open_table(results)
    commit_slice(
        results,
        make_scores(number_night(number, config.rows)).to_batches(),
        run_id=f"night-{number:04d}",
        slice_number=0,
        run_date=(_FIRST_DAY + timedelta(days=number)),
        known_since=table.version() if table is not None else -1,
    )


def number_night(number: int, rows: int) -> np.ndarray:
    """Returns the numbers of the objects that are new in a night."""
    return np.arange(number * rows, (number + 1) * rows, dtype=np.int64)


def count_files(folder: Path) -> int:
    """Counts the files that a reader of the table opens."""
    table = open_table(f"file://{folder}/results")
    return len(table.file_uris()) if table is not None else 0
