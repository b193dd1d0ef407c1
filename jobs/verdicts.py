"""Command: take in what people found on photos.

``python -m jobs.verdicts add FILE.csv --results URI``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.errors import EXIT_DONE, RequestError
from jobs.findings.config import AddVerdictsConfig

_PROG = "python -m jobs.verdicts"


def main(argv: Sequence[str]) -> int:
    """Runs ``add`` and returns the exit code; the file may stand before the flags.

    Raises:
        RequestError: another command, or wrong flags.
    """
    command, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if command in ("-h", "--help"):
        print(f"usage: {_PROG} add FILE.csv --results URI, or {_PROG} add --help\n\n{AddVerdictsConfig.__doc__}")
        return EXIT_DONE
    if command != "add":
        raise RequestError(f"expected the command add, got {command!r}; see --help")
    if rest and not rest[0].startswith("-"):
        rest = ["--file", *rest]
    config = parse_config(AddVerdictsConfig, rest, prog=f"{_PROG} add")
    from jobs.findings.verdicts import add_verdicts

    return add_verdicts(config)


if __name__ == "__main__":
    run_command(main)
