"""Command: draw photos of a run at random, to be looked at whatever their scores.

``python -m jobs.sample --results URI --run-id ID --n 200``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.findings.config import SampleConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.findings.sample.sample_run` and returns the exit code."""
    config = parse_config(SampleConfig, argv, prog="python -m jobs.sample")
    # Imported once the request is right: decoding and the table take seconds, --help and a typo need neither.
    from jobs.findings.sample import sample_run

    return sample_run(config)


if __name__ == "__main__":
    run_command(main)
