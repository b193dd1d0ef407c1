"""Verb: calibrate a registered detector again on flawless photos that it was not trained on, without retraining.

``python -m jobs.recalibrate --data URI --category NAME --detectors URI --alias champion [--promote]``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_verb
from jobs.registry_config import RecalibrateConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.recalibration.run` and returns the exit code."""
    config = parse_config(RecalibrateConfig, argv, prog="python -m jobs.recalibrate")
    from jobs.recalibration import (
        run,  # torch and Ray take seconds to import, which --help and a wrong flag need not wait for
    )

    return run(config)


if __name__ == "__main__":
    run_verb(main)
