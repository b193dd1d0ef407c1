"""Command: take in what people found on photos.

``python -m jobs.verdicts add FILE.csv --results URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import run_command, run_subcommand
from jobs.findings.config import AddVerdictsConfig


def main(argv: Sequence[str]) -> int:
    """Runs one of the commands of the verdicts and returns the exit code; ``add`` takes its file before the flags too.

    Raises:
        RequestError: no such command, or wrong flags.
    """
    if list(argv[:1]) == ["add"] and len(argv) > 1 and not argv[1].startswith("-"):
        argv = ["add", "--file", *argv[1:]]
    return run_subcommand(argv, {"add": (AddVerdictsConfig, add)}, prog="python -m jobs.verdicts")


def add(config: AddVerdictsConfig) -> int:
    """Adds the verdicts of a file and returns the exit code."""
    # Imported once the request is right: the tables' libraries take a second, --help and a typo need none of them.
    from jobs.findings.verdicts import add_verdicts

    return add_verdicts(config)


if __name__ == "__main__":
    run_command(main)
