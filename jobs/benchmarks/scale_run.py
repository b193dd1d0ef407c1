"""One size of `jobs.benchmarks.scale`, in a process of its own: its memory is then this size's alone.

``python -m jobs.benchmarks.scale_run --rows N --folder FOLDER`` runs the real job over N synthetic objects and
prints its metrics as one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.cli import parse_config, run_command
from jobs.config import JobConfig, LocalPath
from jobs.errors import EXIT_DONE
from jobs.scoring.config import ScoreConfig

WARM_UP_ROWS = 200
METRICS_LINE = "metrics: "
"""What the one line begins with."""
PARTS = ("listing", "ordering", "pipeline", "publication")
_GIB = 2**30


class ScaleRunConfig(JobConfig):
    """Run the scoring job once over synthetic objects without photos."""

    rows: int = Field(ge=1, description="objects in the archive")
    settled_share: float = Field(0.2, ge=0, lt=1, description="share of them that an earlier run has scored")
    folder: LocalPath = Field(description="an empty folder for everything")


def main(argv: Sequence[str]) -> int:
    """Starts Ray, runs twice over few objects and once over all, and prints the metrics."""
    config = parse_config(ScaleRunConfig, argv, prog="python -m jobs.benchmarks.scale_run")
    # --help need not wait 2 s for Ray, and jobs.benchmarks.scale only wants the names above.
    from jobs.benchmarks.process_tree import MemorySampler
    from jobs.benchmarks.synthetic_fleet import register_null_detectors
    from jobs.cluster.session import start_own_ray

    began = time.monotonic()
    start_own_ray()
    ray_start_s = time.monotonic() - began
    folder = Path(config.folder).absolute()
    register_null_detectors(f"file://{folder}/detectors")
    measure_run(folder / "warm-up", WARM_UP_ROWS, settled=0)
    fixed = measure_run(folder / "fixed", WARM_UP_ROWS, settled=0)
    before_gib = measure_peak_gib()
    with MemorySampler() as sampler:
        measured = measure_run(folder / "run", config.rows, settled=int(config.rows * config.settled_share))
    metrics = {
        "rows": config.rows,
        "ray_start_s": ray_start_s,
        "fixed": fixed,
        "measured": measured,
        "driver_before_gib": before_gib,
        "driver_peak_gib": measure_peak_gib(),
        "ray_processes_peak_gib": sampler.peak_total_bytes / _GIB,
        "largest_ray_process_peak_gib": sampler.peak_largest_bytes / _GIB,
    }
    print(METRICS_LINE + json.dumps(metrics), flush=True)
    return EXIT_DONE


def measure_peak_gib() -> float:
    """Returns the peak resident memory of this process alone; Linux gives KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def measure_run(folder: Path, rows: int, *, settled: int) -> dict[str, Any]:
    """Returns seconds of each part, CPU seconds of all processes, rows and slices of one run."""
    # Ray and the pipeline: 2 s of CPU, see above.
    from jobs.benchmarks.null_pipeline import score_with_null
    from jobs.benchmarks.process_tree import measure_cpu_s
    from jobs.benchmarks.synthetic_fleet import publish_earlier_run, write_list
    from jobs.scoring import run as scoring
    from jobs.scoring.record import read_record
    from jobs.scoring.run_folder import RunFolder

    folder.mkdir(parents=True)
    results = f"file://{folder}/results"
    write_list(folder / "archive.parquet", rows)
    publish_earlier_run(results, rows, settled=settled)
    config = ScoreConfig(
        archive=str(folder / "archive.parquet"),
        detectors=str(folder.parent / "detectors"),
        results=results,
        run_id="scale",
    )
    cpu_s, began = measure_cpu_s(os.getpid()), time.monotonic()
    scoring.score_archive(config, pipeline=score_with_null)
    total_s = time.monotonic() - began
    record = read_record(RunFolder(results, "scale")) or {}
    timings_s = record["timings_s"]
    seconds = [timings_s[name] for name in ("listing", "ordering", "scoring", "publishing")]
    return {
        "seconds": dict(zip(PARTS, seconds, strict=True)),
        "total_s": total_s,
        "cpu_s": measure_cpu_s(os.getpid()) - cpu_s,
        "to_score": sum(record["counts"].values()),
        "scored": record["counts"]["scored"],
        "slices": record["slices"],
        "largest_file_mb": max(file.stat().st_size / 1e6 for file in (folder / "results/scores").rglob("*.parquet")),
    }


if __name__ == "__main__":
    run_command(main)
