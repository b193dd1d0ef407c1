"""The front door: ``attentdiffernet`` or ``python -m jobs`` lists the commands; followed by one, it runs that."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from jobs.cli import run_command
from jobs.errors import EXIT_DONE, RequestError
from model.versions import read_versions

# Modules by name, imported when they are called for: a list of commands needs none of them, and the search lies in
# tuning, which may import jobs while jobs must not know it.
COMMANDS = {
    "score": ("jobs.score", "score an archive of photos into the result table"),
    "train": ("jobs.train", "train, calibrate and register detectors"),
    "evaluate": ("jobs.evaluate", "measure registered detectors on labelled photos"),
    "recalibrate": ("jobs.recalibrate", "calibrate a detector again, on new flawless photos"),
    "nightly": ("jobs.nightly", "submit tonight's scoring run to a cluster, wait, continue it when it was cut off"),
    "report": ("jobs.report", "write one page of what a run found, to look through and to mark"),
    "explain": ("jobs.explain", "draw where the scores of some photos come from, in one picture"),
    "sample": ("jobs.sample", "draw photos of a run at random, to be looked at whatever their scores"),
    "verdicts": ("jobs.verdicts", "take in what people found on photos"),
    "registry": ("jobs.registry", "list, show, compare, promote and roll back detectors"),
    "table": ("jobs.table", "care for the result table: optimize, vacuum, repair, history, export, adopt"),
    "search": ("tuning.search", "search attention placement and flow settings"),
    "comparison": ("jobs.comparison", "train all variants on labelled photos and compare them"),
    "dataset": ("jobs.dataset", "check public data sets against their published counts, and convert them"),
    "manifest": ("jobs.manifest", "list what an archive holds, as a Parquet file"),
    "capacity": ("jobs.capacity", "say how large a cluster has to be for N photos, and what that costs"),
    "benchmark": ("jobs.benchmark", "measure how fast scoring is on this machine"),
    "demo": ("jobs.demo", "draw photos, train, score and query; needs no data"),
    "completion": ("jobs.cli.completion", "print a completion script for bash, zsh or fish"),
    "pretext-sheet": ("jobs.pretext_sheet", "draw the synthetic defects that attention learns from"),
}
"""Command -> module with its ``main``, and what it does."""


def main(argv: Sequence[str]) -> int:
    """Runs the command that ``argv`` begins with and returns its exit code.

    Raises:
        RequestError: no such command.
    """
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(format_commands())
        return EXIT_DONE
    if name == "--version":
        print(f"attentdiffernet {read_versions()['attentdiffernet-ray']}")
        return EXIT_DONE
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise RequestError(f"no command {name!r}; {hint}")
    code: int = importlib.import_module(COMMANDS[name][0]).main(argv[1:])
    return code


def format_commands() -> str:
    """Formats the list of commands, a line each."""
    lines = [f"  {name:14}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(["usage: attentdiffernet COMMAND [FLAGS], or COMMAND --help", "", *lines])


def start() -> None:
    """Runs the command of this process; the console script ``attentdiffernet`` calls it."""
    run_command(main)


if __name__ == "__main__":
    start()
