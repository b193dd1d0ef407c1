"""Command: train a detector of one category with Ray Train, calibrate it on held-out flawless photos and register it.

``python -m jobs.train --data URI --category NAME --variant NAME --detectors URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.training.config import TrainConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.training.run.train_detectors` and returns the exit code."""
    config = parse_config(TrainConfig, argv, prog="python -m jobs.train")
    # Imported once the request is right: Ray and the network take 5 to 7 s of CPU, --help and a typo take 0.3 s.
    from jobs.training.run import train_detectors

    return train_detectors(config)


if __name__ == "__main__":
    run_command(main)
