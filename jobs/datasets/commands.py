"""The commands on data sets: check and convert.

``python -m jobs.dataset check --layout visa --source ~/VisA``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobs.cli import run_subcommand
from jobs.config import JobConfig
from jobs.datasets.config import CheckDatasetConfig, ConvertDatasetConfig
from jobs.datasets.conversion import write_photos
from jobs.datasets.counts import PUBLISHED, count_photos, format_counts, list_problems
from jobs.datasets.layouts import read_dataset
from jobs.datasets.photo import LabelledPhoto
from jobs.errors import RequestError
from jobs.tables.text import make_printable


def run_dataset_command(argv: Sequence[str]) -> int:
    """Runs the command that ``argv`` begins with and returns the exit code; ``--help`` lists the commands.

    Raises:
        RequestError: no such command, wrong flags for it, or a data set that lacks something.
    """
    return run_subcommand(argv, _COMMANDS, prog="python -m jobs.dataset")


def check(config: CheckDatasetConfig) -> None:
    """Prints the counts of a data set, then what it lacks, a line each.

    Raises:
        RequestError: it lacks something.
    """
    problems = print_counts(config, read_dataset(config))
    if problems:
        against = "the published counts" if config.layout in PUBLISHED else "what a comparison needs"
        raise RequestError(f"{problems} difference(s) from {against} in {config.source}: see the lines above")


def convert(config: ConvertDatasetConfig) -> None:
    """Writes a data set; what it lacks is said, and does not stop it."""
    photos = read_dataset(config)
    print_counts(config, photos)
    written, found = write_photos(photos, config)
    print(f"{written} photos written to {config.output}, {found} were there")


def print_counts(config: CheckDatasetConfig, photos: Sequence[LabelledPhoto]) -> int:
    """Prints the counts of each category and what the data set lacks; returns how many lines the latter were."""
    counts = count_photos(photos)
    for name, found in counts.items():
        print(f"{make_printable(name)}: {format_counts(found)}")
    problems = list(list_problems(config.layout, counts))
    for line in problems:
        print(f"differs: {make_printable(line)}")
    return len(problems)


_COMMANDS: Mapping[str, tuple[type[JobConfig], Callable[[Any], None]]] = {
    "check": (CheckDatasetConfig, check),
    "convert": (ConvertDatasetConfig, convert),
}
