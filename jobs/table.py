"""Command: care for the result table: optimize, vacuum, repair, history, export, adopt.

``python -m jobs.table optimize --results URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import run_command


def main(argv: Sequence[str]) -> int:
    """Runs one of the table's commands and returns the exit code."""
    # The front door imports this module to list the commands; what they need takes 0.2 s of CPU more.
    from jobs.results.commands import run_table_command

    return run_table_command(argv)


if __name__ == "__main__":
    run_command(main)
