"""Command: train all variants with several seeds on labelled data sets, test them and compare them with baselines.

``python -m jobs.comparison --data URI,URI --output URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.evaluation.comparison_config import ComparisonConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.evaluation.comparison_run.compare_variants` and returns the exit code."""
    config = parse_config(ComparisonConfig, argv, prog="python -m jobs.comparison")
    # Imported once the request is right: Ray and the network take 5 to 7 s of CPU, --help and a typo take 0.3 s.
    from jobs.evaluation.comparison_run import compare_variants

    return compare_variants(config)


if __name__ == "__main__":
    run_command(main)
