"""Verb: what scoring costs per row besides photos and network, from ten thousand rows to ten million.

``python -m jobs.benchmark_scale`` (`make bench-scale`) runs the job (listing, ordering, Ray Data and its checkpoint,
publication) over synthetic objects with a null detector, each size in a process of its own
(`jobs.benchmarks.scale_run`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.benchmarks.scale_run import PARTS
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig
from jobs.errors import EXIT_DONE, JobError

_SIZES = [10_000, 100_000, 1_000_000, 10_000_000]


class BenchmarkScaleConfig(JobConfig):
    """Measure the cost per row of everything around the photos, and the driver's memory, at several sizes."""

    sizes: list[int] = Field(_SIZES, description="rows of the archives, ascending, with commas between them")
    settled_share: float = Field(0.2, ge=0, lt=1, description="share of the rows that an earlier run has scored")
    output: str = Field("build/bench-scale.json", description="file to write")


def main(argv: Sequence[str]) -> int:
    """Runs every size and writes the figures."""
    config = parse_config(BenchmarkScaleConfig, argv, prog="python -m jobs.benchmark_scale")
    sizes = [_run(rows, config.settled_share) for rows in sorted(config.sizes)]
    costs = [size["cpu_us_per_row"] for size in sizes]
    figures = {
        "cost_growth": costs[-1] / costs[0],
        "cost_growth_wall": sizes[-1]["us_per_row"] / sizes[0]["us_per_row"],
        "cost_growth_neighbours": [
            after["cpu_us_per_row"] / before["cpu_us_per_row"] for before, after in pairwise(sizes)
        ],
        "driver_peak_gib": max(size["driver_peak_gib"] for size in sizes),
        "sizes": sizes,
        "config": config.model_dump(mode="json"),
        "cores": os.cpu_count(),
    }
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    Path(config.output).write_text(json.dumps(figures, indent=2))
    for name in ("cost_growth", "cost_growth_wall", "driver_peak_gib"):
        print(f"{name}: {figures[name]:.3g}")
    print(f"written to {config.output}")
    return EXIT_DONE


def _run(rows: int, settled_share: float) -> dict[str, Any]:
    """The figures of one size; costs are per row, less those of a run over next to nothing in the same Ray."""
    folder = tempfile.mkdtemp(prefix="attentdiffernet-scale-")
    asked = ["--rows", str(rows), "--settled-share", str(settled_share), "--folder", folder]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, arguments from a checked configuration
            [sys.executable, "-m", "jobs.benchmarks.scale_run", *asked], stdout=subprocess.PIPE, text=True, check=False
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("figures: ")]
    if done.returncode or not lines:
        raise JobError(f"the run over {rows} rows ended with exit code {done.returncode}: {done.stdout[-500:]!r}")
    found = json.loads(lines[-1].removeprefix("figures: "))
    figures: dict[str, Any] = found | _per_row(rows, found["fixed"], found["measured"])
    print(
        f"{rows} rows: {figures['cpu_us_per_row']:.0f} us CPU and {figures['us_per_row']:.0f} us wall per row, driver "
        f"{figures['driver_peak_gib']:.2f} GiB",
        flush=True,
    )
    return figures


def _per_row(rows: int, fixed: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Microseconds per row of the archive, of the whole and of its parts."""
    parts = {name: 1e6 * (measured["seconds"][name] - fixed["seconds"][name]) / rows for name in PARTS}
    return {
        "cpu_us_per_row": 1e6 * (measured["cpu_s"] - fixed["cpu_s"]) / rows,
        "us_per_row": 1e6 * (measured["total_s"] - fixed["total_s"]) / rows,
        "parts_us_per_row": parts,
    }


if __name__ == "__main__":
    run_command(main)
