"""Verb: score labelled photos (MVTec layout) with registered detectors; AUROC per category and their mean.

``python -m jobs.evaluate --data URI --detectors URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_verb
from jobs.config import EvaluateConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.evaluation.run` and returns the exit code."""
    config = parse_config(EvaluateConfig, argv, prog="python -m jobs.evaluate")
    from jobs.evaluation import (
        run,  # torch and Ray take seconds to import, which --help and a wrong flag need not wait for
    )

    return run(config)


if __name__ == "__main__":
    run_verb(main)
