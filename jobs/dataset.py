"""Command: check public data sets against their published counts, and bring them into one layout.

``python -m jobs.dataset check --layout mvtec_ad --source FOLDER``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import run_command


def main(argv: Sequence[str]) -> int:
    """Runs ``check`` or ``convert`` and returns the exit code."""
    # The front door imports this module to list the commands; what they need takes 0.5 s of CPU more.
    from jobs.datasets.commands import run_dataset_command

    return run_dataset_command(argv)


if __name__ == "__main__":
    run_command(main)
