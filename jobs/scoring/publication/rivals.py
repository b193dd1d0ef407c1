"""Other runs over the same archive at the same time: each photo counts once, and is scored by both."""

from __future__ import annotations

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
    staging, mine = uris.join(config.results, STAGING), config.model_dump(mode="json")
    leases = [info for info in storage.list_objects(staging) if info.uri.endswith("/lease.json")]
    young = [info.uri for info in leases if find_age(info) < timedelta(seconds=2 * TTL_S)]
    runs = sorted({uri[len(staging) + 1 :].split("/", 1)[0] for uri in young} - {config.run_id})
    records = {run: read_unfinished(RunFolder(config.results, run)) or {} for run in runs}
    return [run for run in runs if all(records[run].get("config", {}).get(name) == mine[name] for name in _SAME_WORK)]


def describe_rivals(rivals: list[str]) -> str:
    """Says what it means that other runs are under way."""
    return (
        f"warning: run {', '.join(rivals)} is under way over the same archive: each photo counts once, but both runs "
        "score it; stop one of them, the other goes on from the table"
    )
