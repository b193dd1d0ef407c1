"""Other runs over the same archive at the same time: each photo counts once, and is scored by both."""

from __future__ import annotations

import itertools
from datetime import timedelta

from jobs import storage
from jobs.results.orphans import find_age
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_unfinished
from jobs.scoring.run_folder import STAGING, RunFolder
from jobs.storage import uris
from jobs.storage.lease import TTL_S

_SAME_WORK = ("archive", "detectors", "alias")
"""Fields of two requests that, if they are equal, make the runs score the same photos with the same detectors."""


def list_rivals(config: ScoreConfig) -> list[str]:
    """Lists the other runs that are under way and score the same photos, sorted.

    A run counts as under way while its lease is younger than two of its lifetimes, by this machine's clock, which is
    good enough for a warning.
    """
    mine = config.model_dump(mode="json")
    folders = storage.list_level(uris.join(config.results, STAGING))[1]
    runs = sorted({folder.rsplit("/", 1)[1] for folder in folders} - {config.run_id})
    alive = [run for run in runs if is_under_way(RunFolder(config.results, run))]
    records = {run: read_unfinished(RunFolder(config.results, run)) or {} for run in alive}
    return [run for run in alive if all(records[run].get("config", {}).get(name) == mine[name] for name in _SAME_WORK)]


def is_under_way(folder: RunFolder) -> bool:
    """Tells whether a run's lease is young; of its staging, which may have thousands of files, one page is listed."""
    key = uris.split(folder.lease)[2]
    found = itertools.chain.from_iterable(storage.list_between(folder.staging, after=key[:-1], until=key))
    return any(info.uri == folder.lease and find_age(info) < timedelta(seconds=2 * TTL_S) for info in found)


def describe_rivals(rivals: list[str]) -> str:
    """Says what it means that other runs are under way."""
    return (
        f"warning: run {', '.join(rivals)} is under way over the same archive: each photo counts once, but both runs "
        "score it; stop one of them, the other goes on from the table"
    )
