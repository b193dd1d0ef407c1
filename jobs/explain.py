"""Command: where the scores of some photos come from, in one picture.

``python -m jobs.explain IMAGE... --detector URI``
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.explanation.config import ExplainConfig

_SWITCHES = ("-h", "--help", "--help-all")


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.explanation.run.explain_images` and returns the exit code."""
    config = parse_config(ExplainConfig, name_images(argv), prog="python -m jobs.explain")
    # Imported once the request is right: torch takes seconds, --help and a typo need none of it.
    from jobs.explanation.run import explain_images

    return explain_images(config)


def name_images(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with the photos, which stand without a flag before or after the others, as a flag."""
    images: list[str] = []
    flags: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if not argument.startswith("-"):
            images.append(argument)
            continue
        flags.append(argument)
        if "=" not in argument and argument not in _SWITCHES:  # every other flag has a value
            flags += [value for value in [next(arguments, None)] if value is not None]
    return [*flags, *(["--images", json.dumps(images)] if images else [])]


if __name__ == "__main__":
    run_command(main)
