"""Where one scoring run keeps its files below the results: the only place that knows these names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.results.delta import TABLE
from jobs.results.runs import RECORDS
from jobs.storage import uris

UNFINISHED = "unfinished"
"""Folder, below RECORDS, of what runs that are not done have come to: a run that was killed stays there."""
STAGING = "staging"
"""Folder of the runs that are not done, below the results."""
MANIFEST_PART_ROWS = 65_536
"""Rows of one manifest part: what one read task of Ray holds."""

MANIFEST_GROUP_ROWS = 4096
"""Rows of a row group of a part: what a task reads that needs some hundred rows."""


@dataclass(frozen=True)
class RunFolder:
    """URIs of what one run writes: staging while it works, slices of the table, and last its record.

    Attributes:
        results: base URI of the results.
        run_id: name of the run.
    """

    results: str
    run_id: str

    @property
    def staging(self) -> str:
        """Folder of everything that goes once the run is published."""
        return uris.join(self.results, STAGING, self.run_id)

    @property
    def lease(self) -> str:
        """File that keeps a second process from working on the same run."""
        return uris.join(self.staging, "lease.json")

    @property
    def plan(self) -> str:
        """File that a rerun continues from; it is written after the manifest is complete."""
        return uris.join(self.staging, "plan.json")

    @property
    def manifest(self) -> str:
        """Folder of the photos to score, in parts."""
        return uris.join(self.staging, "manifest")

    @property
    def rows(self) -> str:
        """Folder of the STAGED rows that the pipeline writes."""
        return uris.join(self.staging, "rows")

    @property
    def checkpoint(self) -> str:
        """Folder where Ray Data notes which rows are done."""
        return uris.join(self.staging, "checkpoint")

    @property
    def record(self) -> str:
        """The run record: a run without it is not done."""
        return uris.join(self.results, RECORDS, f"{self.run_id}.json")

    @property
    def unfinished(self) -> str:
        """The record of a run that has begun: how far it has come. It goes when the run is done."""
        return uris.join(self.results, RECORDS, UNFINISHED, f"{self.run_id}.json")

    @property
    def table(self) -> str:
        """The result table, which all runs share."""
        return uris.join(self.results, TABLE)

    def manifest_part(self, number: int) -> str:
        """Returns the file of one part of the manifest."""
        return uris.join(self.manifest, f"part-{number:05d}.parquet")

    def list_manifest_parts(self, first: int, end: int) -> list[str]:
        """Lists the files that hold the manifest rows of image_id ``first`` to ``end`` - 1."""
        return [self.manifest_part(n) for n in range(first // MANIFEST_PART_ROWS, math.ceil(end / MANIFEST_PART_ROWS))]
