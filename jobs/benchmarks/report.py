"""The file and the lines that a benchmark leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.config import JobConfig
from model.versions import read_versions


def write_report(
    metrics: Mapping[str, Any], *, output: str, config: JobConfig, more_versions: Mapping[str, str] | None = None
) -> None:
    """Writes metrics as JSON, with the configuration, the number of cores and the libraries' versions.

    Args:
        metrics: what was measured, as JSON.
        output: the file to write, in a folder that is made if need be.
        config: of the benchmark.
        more_versions: of libraries that only this benchmark uses.
    """
    about = {
        "config": config.model_dump(mode="json"),
        "cores": os.cpu_count(),
        "versions": read_versions() | dict(more_versions or {}),
    }
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).write_text(json.dumps({**metrics, **about}, indent=2))


def print_metrics(metrics: Mapping[str, Any], names: Sequence[str]) -> None:
    """Prints a line for each of the metrics of these names."""
    for name in names:
        print(f"{name}: {metrics[name]:.4g}")
