"""Command: score labelled photos (MVTec layout) with registered detectors; AUROC per category and their mean.

``python -m jobs.evaluate --data URI --detectors URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.evaluation.config import EvaluateConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.evaluation.run.evaluate_detectors` and returns the exit code."""
    config = parse_config(EvaluateConfig, argv, prog="python -m jobs.evaluate")
    # Imported once the request is right: Ray and the network take 5 to 7 s of CPU, --help and a typo take 0.3 s.
    from jobs.evaluation.run import evaluate_detectors

    return evaluate_detectors(config)


if __name__ == "__main__":
    run_command(main)
