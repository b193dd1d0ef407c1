"""Command: search attention placement and flow hyperparameters, compare the winner with the paper's models.

``python -m tuning.search --data URI --category NAME --results URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from tuning.config import SearchConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `tuning.run.run` and returns the exit code."""
    config = parse_config(SearchConfig, argv, prog="python -m tuning.search")
    from tuning.run import run  # torch and Ray Tune: 3.7 s of CPU that --help and a wrong flag need not wait for

    return run(config)


if __name__ == "__main__":
    run_command(main)
