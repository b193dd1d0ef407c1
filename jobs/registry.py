"""Command: list, show, compare, promote, roll back and sign registered detectors.

``python -m jobs.registry list --detectors URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import run_command


def main(argv: Sequence[str]) -> int:
    """Runs one of the registry's commands and returns the exit code."""
    # The front door imports this module to list the commands; what they need takes 0.3 s of CPU more.
    from jobs.detectors.commands import run_registry_command

    return run_registry_command(argv)


if __name__ == "__main__":
    run_command(main)
