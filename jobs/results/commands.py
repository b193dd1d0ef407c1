"""The table's commands: optimize, vacuum, repair, history, runs, export, adopt, columns.

``python -m jobs.table vacuum --results URI``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jobs.cli import run_subcommand
from jobs.config import JobConfig
from jobs.errors import RequestError
from jobs.results.adoption import adopt_table
from jobs.results.config import (
    AdoptConfig,
    ColumnsConfig,
    ExportConfig,
    OptimizeConfig,
    RepairConfig,
    RunsConfig,
    TableHistoryConfig,
    VacuumConfig,
)
from jobs.results.delta import ROWS, locate_table
from jobs.results.export import check_output, export_latest
from jobs.results.maintenance import optimize_table, read_history, repair_table, vacuum_table
from jobs.results.runs import read_runs
from jobs.tables.parquet import write_parquet
from jobs.tables.schema import VERDICTS, document_columns
from jobs.tables.text import format_table, make_printable

_PROG = "python -m jobs.table"
_HISTORY = ("version", "at", "operation", "run", "slice", "rows")
_RUNS = ("run_id", "status", "started_at", "listed", "rows", "anomalies", "committed_slices", "slices")
_MAX_NAMED = 10


def run_table_command(argv: Sequence[str]) -> int:
    """Runs the command that ``argv`` begins with and returns the exit code; ``--help`` lists the commands.

    Raises:
        RequestError: no such command, or wrong flags for it.
    """
    return run_subcommand(argv, _COMMANDS, prog=_PROG)


def optimize(config: OptimizeConfig) -> None:
    """Gathers small files, and says what that means for plain readers."""
    done = optimize_table(config.results, join_days=config.join_days)
    print(f"{locate_table(config.results)}: {done.files_before} files before, {done.files_after} now")
    if done.has_day_folders:
        print("it has a folder for each day, so files of two days stay apart: --join-days rewrites it once without")
    if done.files_after < done.files_before:
        print(
            "the files that were replaced stay until a vacuum, for whoever reads an earlier version; readers of plain "
            "Parquet that do not know Delta Lake count their rows twice until then"
        )


def vacuum(config: VacuumConfig) -> None:
    """Deletes what nobody needs, and says how much it was."""
    found = vacuum_table(config.results, retention_hours=config.retention_hours, dry_run=config.dry_run)
    print_files(found, "would be deleted" if config.dry_run else "deleted")


def repair(config: RepairConfig) -> None:
    """Takes lost files out of the table, and names them."""
    found = repair_table(config.results, dry_run=config.dry_run)
    is_done = found and not config.dry_run
    print_files(found, "are lost and were taken out; the next run scores their photos" if is_done else "are lost")


def print_files(found: Sequence[str], what: str) -> None:
    """Prints how many files there were, and the first of them."""
    named = [make_printable(name) for name in found[:_MAX_NAMED]]
    print("\n".join([f"{len(found)} files {what}", *named, *(["..."] if len(found) > _MAX_NAMED else [])]))


def show_history(config: TableHistoryConfig) -> None:
    """Prints the newest versions of the table, newest first."""
    commits = read_history(config.results, limit=config.limit)
    if config.format == "json":
        print(json.dumps(commits, indent=1))
        return
    for commit in commits:
        at = commit["at"]
        commit["at"] = at and datetime.fromtimestamp(at / 1000, UTC).isoformat(" ", "seconds")[:19]
    print(format_table(_HISTORY, [[commit[name] for name in _HISTORY] for commit in commits]))


def show_runs(config: RunsConfig) -> None:
    """Prints the newest runs, newest last, and writes all of them where that is asked for.

    Raises:
        RequestError: there is none, or the file would lie in the result table.
    """
    found = read_runs(config.results)
    if not len(found):
        raise RequestError(f"{config.results} has no run: none was started there yet, or correct --results")
    if config.output:
        check_output(config.results, config.output)
        write_parquet(found, config.output)
    rows = found.slice(max(0, len(found) - config.limit)).to_pylist()
    if config.format == "json":
        print(json.dumps(rows, indent=1, default=str))
        return
    shown = [row | {"started_at": f"{row['started_at']:%Y-%m-%d %H:%M}" if row["started_at"] else None} for row in rows]
    print(format_table(_RUNS, [[make_printable(str(row[name])) for name in _RUNS] for row in shown]))


def export(config: ExportConfig) -> None:
    """Writes the latest state, and says how many rows it has."""
    print(f"{export_latest(config.results, config.output)} photos in {config.output}")


def show_columns(config: ColumnsConfig) -> None:
    """Prints the columns of a table."""
    print(document_columns(ROWS if config.table == "scores" else VERDICTS))


def adopt(config: AdoptConfig) -> None:
    """Adopts a table of before, and says what it found."""
    done = adopt_table(config.results)
    print(f"{locate_table(config.results)} is a Delta table now: {done.files} files, {done.rows} rows")
    if done.leftovers:
        print(f"{done.leftovers} files are of runs that never ended and do not count: jobs.table vacuum deletes them")
    if done.lost:
        print(
            f"warning: {len(done.lost)} files that run records name are lost, such as {done.lost[0]}: the next run "
            "scores their photos",
            file=sys.stderr,
        )


_Command = tuple[type[JobConfig], Callable[[Any], None]]
_COMMANDS: Mapping[str, _Command] = {
    "optimize": (OptimizeConfig, optimize),
    "vacuum": (VacuumConfig, vacuum),
    "repair": (RepairConfig, repair),
    "history": (TableHistoryConfig, show_history),
    "runs": (RunsConfig, show_runs),
    "export": (ExportConfig, export),
    "adopt": (AdoptConfig, adopt),
    "columns": (ColumnsConfig, show_columns),
}
