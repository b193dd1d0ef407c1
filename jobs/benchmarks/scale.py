"""What scoring costs per row besides photos and network, from ten thousand rows to ten million.

Runs the job (listing, ordering, Ray Data and its checkpoint,
publication) over synthetic objects with a null detector, each size in a process of its own
(`jobs.benchmarks.scale_run`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from jobs.benchmarks.config import ScaleBenchmarkConfig
from jobs.benchmarks.report import print_metrics, write_report
from jobs.benchmarks.scale_run import METRICS_LINE, PARTS
from jobs.errors import JobError


def measure_scale(config: ScaleBenchmarkConfig) -> None:
    """Measures every size and writes how the cost per row grows from the smallest to the largest.

    Raises:
        JobError: a run ended early.
    """
    sizes = [measure_size(rows, config.settled_share) for rows in sorted(config.sizes)]
    costs = [size["cpu_us_per_row"] for size in sizes]
    metrics = {
        "cost_growth": costs[-1] / costs[0],
        "cost_growth_wall": sizes[-1]["us_per_row"] / sizes[0]["us_per_row"],
        "cost_growth_neighbours": [after / before for before, after in pairwise(costs)],
        "driver_peak_gib": max(size["driver_peak_gib"] for size in sizes),
        "sizes": sizes,
    }
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, ("cost_growth", "cost_growth_wall", "driver_peak_gib"))


def measure_size(rows: int, settled_share: float) -> dict[str, Any]:
    """Measures one size; costs are per row, less those of a run over next to nothing in the same Ray.

    Raises:
        JobError: the run failed.
    """
    folder = tempfile.mkdtemp(prefix="attentdiffernet-scale-")
    asked = ["--rows", str(rows), "--settled-share", str(settled_share), "--folder", folder]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, arguments from a checked configuration
            [sys.executable, "-m", "jobs.benchmarks.scale_run", *asked], stdout=subprocess.PIPE, text=True, check=False
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(METRICS_LINE)]
    if done.returncode or not lines:
        raise JobError(f"the run over {rows} rows ended with exit code {done.returncode}: {done.stdout[-500:]!r}")
    found = json.loads(lines[-1].removeprefix(METRICS_LINE))
    metrics: dict[str, Any] = found | divide_by_rows(rows, found["fixed"], found["measured"])
    print(
        f"{rows} rows: {metrics['cpu_us_per_row']:.0f} us CPU and {metrics['us_per_row']:.0f} us wall per row, driver "
        f"{metrics['driver_peak_gib']:.2f} GiB",
        flush=True,
    )
    return metrics


def divide_by_rows(rows: int, fixed: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns microseconds per row of the archive, of the whole and of its parts."""
    parts = {name: 1e6 * (measured["seconds"][name] - fixed["seconds"][name]) / rows for name in PARTS}
    return {
        "cpu_us_per_row": 1e6 * (measured["cpu_s"] - fixed["cpu_s"]) / rows,
        "us_per_row": 1e6 * (measured["total_s"] - fixed["total_s"]) / rows,
        "parts_us_per_row": parts,
    }
