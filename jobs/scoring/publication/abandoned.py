"""The staging of runs that were killed and never continued: what they committed is in the table, the rest goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobs import storage
from jobs.scoring.run_folder import STAGING
from jobs.storage import uris

STAGING_KEPT = timedelta(days=2)
"""How long a killed run can be continued by its own id. A run that is alive renews its lease every few seconds."""


def remove_abandoned_staging(results: str, *, but: str) -> list[str]:
    """Deletes the staging of runs in which nothing was written for STAGING_KEPT; returns their ids.

    Args:
        results: base URI of the results.
        but: id of the run that stays, however old.
    """
    removed = []
    for folder in storage.list_level(uris.join(results, STAGING))[1]:
        run_id = folder.rsplit("/", 1)[1]
        newest = max((info.last_modified for info in storage.list_objects(folder)), default=None)
        if run_id != but and (newest is None or datetime.now(UTC) - newest > STAGING_KEPT):
            storage.delete_tree(folder)
            removed.append(run_id)
    return removed
