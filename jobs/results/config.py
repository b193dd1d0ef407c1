"""Configuration of the table's commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.config import JobConfig, Uri

SAFE_RETENTION_HOURS = 24.0
"""A run may read files that were replaced so long ago: it works from the table as it was when it began."""


class _TableConfig(JobConfig):
    results: Uri = Field(description="where scores/ and runs/ are kept")


class OptimizeConfig(_TableConfig):
    """Gather small files of many nights into files of 128 to 512 MB; readers see the same rows all the time."""

    join_days: bool = Field(
        False,
        description="rewrite a table of an earlier version once, which has a folder for each day, so that files of "
        "many days can be gathered",
    )


class VacuumConfig(_TableConfig):
    """Delete files that no row of the table is in any more: replaced ones, and leftovers of runs that died."""

    retention_hours: float = Field(
        168.0,
        ge=0,
        le=876_000,
        description=f"keep files that were in use less than so long ago; below {SAFE_RETENTION_HOURS:g} only while no "
        "run is under way and nobody reads the table",
    )
    dry_run: bool = Field(False, description="list the files, delete none")


class RepairConfig(_TableConfig):
    """Take lost files out of the table, so that it can be read again; the next run scores their photos anew."""

    dry_run: bool = Field(False, description="list the files, change nothing")


class TableHistoryConfig(_TableConfig):
    """Show the newest versions of the table: when, what was done, by which run and slice, rows and files."""

    limit: int = Field(20, ge=1, le=1_000_000, description="how many versions")
    format: Literal["text", "json"] = Field("text", description="a table for people, or JSON")


class RunsConfig(_TableConfig):
    """Show the runs that wrote into the table: which are finished, which are not, and what they wrote."""

    limit: int = Field(20, ge=1, le=1_000_000, description="how many runs, the newest")
    format: Literal["text", "json"] = Field("text", description="a table for people, or JSON")
    output: Uri | None = Field(None, description="Parquet file to write all of them into, for a join by run_id")


class ExportConfig(_TableConfig):
    """Write the latest row of each photo and box as one plain Parquet file, for tools without Delta Lake."""

    output: Uri = Field(description="Parquet file to write")


class AdoptConfig(_TableConfig):
    """Make a Delta table of results of an earlier version; its files stay where they are and count as before."""


class ColumnsConfig(JobConfig):
    """Show the columns of the result table, or of the verdicts, with their types and meaning, as Markdown."""

    table: Literal["scores", "verdicts"] = Field("scores", description="which table")
