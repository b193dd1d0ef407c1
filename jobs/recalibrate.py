"""Command: calibrate a registered detector again on flawless photos that it was not trained on, without retraining.

``python -m jobs.recalibrate --data URI --category NAME --detectors URI --alias champion [--promote]``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.detectors.config import RecalibrateConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.scoring.recalibration.run.recalibrate_detector` and returns the exit code."""
    config = parse_config(RecalibrateConfig, argv, prog="python -m jobs.recalibrate")
    # Imported once the request is right: 5 s of CPU: Ray and the network, --help and a typo take 0.3 s.
    from jobs.scoring.recalibration.run import recalibrate_detector

    return recalibrate_detector(config)


if __name__ == "__main__":
    run_command(main)
