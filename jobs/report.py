"""Command: one page of what a run found.

``python -m jobs.report --results URI --run-id ID``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.findings.config import ReportConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.findings.run.report_run` and returns the exit code."""
    config = parse_config(ReportConfig, argv, prog="python -m jobs.report")
    # Imported once the request is right: 4 s of CPU: Ray, plots and the network, --help and a typo take 0.3 s.
    from jobs.findings.run import report_run

    return report_run(config)


if __name__ == "__main__":
    run_command(main)
